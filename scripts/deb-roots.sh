#!/bin/sh
# Builds the Debian packages in a fresh root directory of each SUITE, and installs, tries and removes them in a second one.
#
#   scripts/deb-roots.sh [SUITE...]      as root, with debootstrap; default bookworm and trixie
#
# OUT: where the packages go, a directory for each suite (default build/deb-roots). Only what is committed is built. STAGES: build, try, or both
# (default). LINTIAN=no: without it, which is most of what is downloaded.
set -eu

top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
out=${OUT:-$top/build/deb-roots}
[ $# -gt 0 ] || set -- bookworm trixie
case ${STAGES:-both} in both | build | try) ;; *) echo "deb-roots: STAGES is build, try or both" >&2 && exit 2 ;; esac

packages='build-essential pkg-config debhelper libevent-dev zlib1g-dev'
[ "${LINTIAN:-yes}" = no ] || packages="$packages lintian"
for suite; do
	if [ "${STAGES:-both}" != try ]; then
		root=$(mktemp -d "${TMPDIR:-/var/tmp}/deb-root.XXXXXX")
		trap 'rm -rf --one-file-system "$root"' EXIT
		trap 'exit 130' INT
		trap 'exit 143' TERM HUP
		"$top/scripts/clean-root.sh" "$suite" "$root/it" -- sh -c "export DEBIAN_FRONTEND=noninteractive
			apt-get -q -q update && apt-get -q -q -y install --no-install-recommends $packages >/dev/null &&
			{ dpkg --compare-versions \$(apt-cache show libhiredis-dev | sed -n 's/^Version: //p' | head -n 1) lt 1.0 &&
			  apt-get -q -q -y install --no-install-recommends libssl-dev >/dev/null ||
			  apt-get -q -q -y install --no-install-recommends libhiredis-dev >/dev/null; } && make deb"
		rm -rf "${out:?}/$suite"
		mkdir -p "$out"
		mv "$root/it/root/redis-shm/build/deb" "$out/$suite"
		rm -rf --one-file-system "$root"
		trap - EXIT
	fi
	if [ "${STAGES:-both}" != build ]; then
		EXTRA=$out/$suite "$top/scripts/clean-root.sh" "$suite" -- sh -c 'mkdir build && mv extra build/deb && packaging/try-deb.sh'
	fi
done
