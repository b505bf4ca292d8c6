#!/bin/sh
# Shows that each rule for memory that a hostile peer can write (SECURITY.md) is held by a test: builds the tree with one check taken out,
# and runs the test that must fail then.
#
#   tests/mutants/run.sh [NAME]...    all, or those named; a line each, last "N passed, N failed, N skipped"
#
# tests/mutants/list/NAME is a shell fragment: rule= (which), file= and edit= (a sed program that must change the file), what= (a word of
# what is taken out), and try= (the test, in the copy of the tree, with the mutant built; it must fail).
# The copy is build/mutants/tree; V=1 shows what the test said. RESULTS=FILE as for tests/run.sh.

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
tree=$root/build/mutants/tree
log=$root/build/mutants/log
seconds=${MUTANT_SECONDS:-100}
passed=0 failed=0
trap 'exit 130' INT TERM
mkdir -p "$tree" "$root/build/mutants" || exit 1
export RESULTS_OUTER="$RESULTS"
unset RESULTS MAKEFLAGS MFLAGS MAKELEVEL

# Objects and tests are built once, in the copy, without a change; each mutant then compiles what its file is part of.
for part in Makefile include src tests packaging; do
	rm -rf "${tree:?}/$part"
	cp -a "$root/$part" "$tree/$part" || exit 1
done
mkdir -p "$tree/build"
[ -e "$tree/build/deps" ] || ln -s "$root/build/deps" "$tree/build/deps"
cd "$tree" || exit 1
build() { make -j2 build/module-shm.so build/libhiredis_shm.so mutants-tests >"$log" 2>&1; }
if ! build; then
	cat "$log"
	echo "0 passed, 1 failed, 0 skipped"
	exit 1
fi

one() {
	rule='' file='' edit='' what='' try=''
	# shellcheck disable=SC1090
	. "$root/tests/mutants/list/$1" || return 2
	sed -i "$edit" "$tree/$file" || return 2
	if cmp -s "$tree/$file" "$root/$file"; then
		result="its edit no longer changes $file"
		return 2
	fi
	if ! build; then
		result="does not build"
		return 2
	fi
	if timeout -k 5 "$seconds" sh -c "$try" >"$log" 2>&1; then
		result="not noticed by: $try"
		return 1
	fi
	return 0
}

[ $# -gt 0 ] || set -- $(ls "$root/tests/mutants/list")
for name; do
	if one "$name"; then
		passed=$((passed + 1))
		printf 'ok    rule %s, without %s: found\n' "$rule" "$what"
	else
		failed=$((failed + 1))
		printf 'FAIL  rule %s, without %s: %s\n' "$rule" "$what" "$result"
		tail -20 "$log" | sed 's/^/      | /'
	fi
	[ "${V:-0}" = 0 ] || sed 's/^/      | /' "$log"
	[ -z "$file" ] || cp "$root/$file" "$tree/$file" # newer than its objects: built again
done
[ -z "$RESULTS_OUTER" ] || echo "$passed $failed 0" >>"$RESULTS_OUTER"
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
