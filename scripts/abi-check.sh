#!/bin/sh
# Compares the library's ABI with that of a release, so that a change that breaks programs does not keep the soname.
#
#   scripts/abi-check.sh [TAG]     TAG: the release to compare with; default: the last tag vN.N.N that HEAD descends from
#
# Needs abidiff (Debian: abigail-tools) and git. Builds the release in a directory of its own. Exit status: 0 compatible, or no release yet (said so);
# 1 incompatible under the same soname; 2 wrong usage or no abidiff.
set -eu

top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$top"
fail() {
	printf 'abi-check: %s\n' "$*" >&2
	exit 2
}

tag=${1:-$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null || :)}
if [ -z "$tag" ]; then
	echo "abi-check: no release yet: nothing to compare with"
	exit 0
fi
git rev-parse -q --verify "$tag^{commit}" >/dev/null || fail "no tag or commit '$tag'"
command -v abidiff >/dev/null || fail "needs abidiff: sudo apt-get install abigail-tools"
old=$(mktemp -d)
trap 'rm -rf "$old"' EXIT
git archive "$tag" | tar -x -C "$old"
[ ! -e build/deps ] || { mkdir -p "$old/build" && ln -s "$top/build/deps" "$old/build/deps"; }
library() { find "$1/build" -maxdepth 1 -name 'libhiredis_shm.so.*' | head -n 1; }
make -s -C "$old" build/"$(sed -n 's/.*(O)\/\(libhiredis_shm\.so\):.*/\1/p' "$old/Makefile" | head -n 1)" >/dev/null
make -s build/libhiredis_shm.so >/dev/null
before=$(library "$old") after=$(library "$top")
if [ "${before##*.}" != "${after##*.}" ]; then
	echo "abi-check: the soname changed since $tag (${before##*/} to ${after##*/}): programs are rebuilt anyway"
	exit 0
fi
status=0
abidiff --headers-dir1 "$old/include" --headers-dir2 include "$before" "$after" || status=$?
# Bit 3: an ABI change; bit 4: one that breaks programs. Additions alone have bit 3 only.
[ $((status & 3)) -eq 0 ] || fail "abidiff failed"
[ $((status & 8)) -eq 0 ] || {
	echo "abi-check: incompatible with $tag under the same soname ${after##*/}" >&2
	exit 1
}
echo "abi-check: compatible with $tag"
