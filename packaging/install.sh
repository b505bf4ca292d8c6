#!/bin/sh
# Installs what was built, or removes it again: both verbs walk the one list below. `make install` and `make uninstall` run it.
#
#   packaging/install.sh install|uninstall BUILD-DIRECTORY
#
# From the environment: VERSION, SOVERSION, DESTDIR, PREFIX, and the places below it, all as in the Makefile. What is there but optional (the
# preload library) is taken when it was built. Files are first written beside their place, so that a running server keeps the old
# module and nobody sees half a file. uninstall removes directories that have become empty and are ours alone.
set -eu

verb=$1 built=$2
top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$top"

fail() {
	printf 'install: %s\n' "$*" >&2
	exit 1
}

# put MODE FILE PLACE
put() {
	if [ "$verb" = uninstall ]; then
		rm -f "$DESTDIR$3"
		return
	fi
	[ -e "$2" ] || fail "$2 is not there: run make first"
	mkdir -p "$DESTDIR${3%/*}"
	# -p is not wanted: the files' times are those of the installation.
	cp "$2" "$DESTDIR$3.new$$" && chmod "$1" "$DESTDIR$3.new$$" && mv -f "$DESTDIR$3.new$$" "$DESTDIR$3"
}

# link TARGET PLACE
link() {
	if [ "$verb" = uninstall ]; then
		rm -f "$DESTDIR$2"
	else
		mkdir -p "$DESTDIR${2%/*}"
		ln -sfn "$1" "$DESTDIR$2"
	fi
}

# For pkg-config, which can be told another prefix.
below_prefix() {
	case $1 in "$PREFIX"/*) printf '${prefix}%s' "${1#"$PREFIX"}" ;; *) printf '%s' "$1" ;; esac
}

# filled TEMPLATE PLACE: the same with @NAME@ replaced.
filled() {
	if [ "$verb" = uninstall ]; then
		rm -f "$DESTDIR$2"
		return
	fi
	mkdir -p "$DESTDIR${2%/*}"
	sed -e "s|@VERSION@|$VERSION|g" -e "s|@SOVERSION@|$SOVERSION|g" -e "s|@PREFIX@|$PREFIX|g" -e "s|@LIBDIR@|$LIBDIR|g" \
		-e "s|@INCLUDEDIR@|$INCLUDEDIR|g" -e "s|@MODULEDIR@|$MODULEDIR|g" -e "s|@PC_LIBDIR@|$(below_prefix "$LIBDIR")|g" \
		-e "s|@PC_INCLUDEDIR@|$(below_prefix "$INCLUDEDIR")|g" "$1" >"$DESTDIR$2.new$$"
	chmod 644 "$DESTDIR$2.new$$" && mv -f "$DESTDIR$2.new$$" "$DESTDIR$2"
}

# manual PAGE: the page, and for every further name in its NAME section a page that refers to it.
manual() {
	section=${1##*.}
	page=${1##*/}
	put 644 "$1" "$MANDIR/man$section/$page"
	for name in $(awk '/^\.SH/ { inside = $2 == "NAME"; next } inside { sub(/ \\-.*/, ""); gsub(/,/, " "); print }' "$1"); do
		[ "$name.$section" = "$page" ] || link "$page" "$MANDIR/man$section/$name.$section"
	done
}

[ "$verb" = install ] || [ "$verb" = uninstall ] || fail "install or uninstall, not '$verb'"
case $PREFIX in /*) ;; *) fail "PREFIX must begin with a slash, not '$PREFIX'" ;; esac

# Servers refuse a module that they may not execute.
put 755 "$built/module-shm.so" "$MODULEDIR/module-shm.so"

put 644 "$built/libhiredis_shm.so.$SOVERSION" "$LIBDIR/libhiredis_shm.so.$VERSION"
link "libhiredis_shm.so.$VERSION" "$LIBDIR/libhiredis_shm.so.$SOVERSION"
link "libhiredis_shm.so.$SOVERSION" "$LIBDIR/libhiredis_shm.so"
put 644 "$built/libhiredis_shm.a" "$LIBDIR/libhiredis_shm.a"
put 644 "$built/libcharfifo.a" "$LIBDIR/libcharfifo.a"
for optional in $OPTIONAL_LIBS; do
	[ "$verb" = install ] && [ ! -e "$built/$optional" ] || put 644 "$built/$optional" "$PRELOADDIR/$optional"
done

# make valkey
if [ "$verb" = uninstall ] || [ -e "$built/libvalkey_shm.so.$SOVERSION" ]; then
	put 644 "$built/libvalkey_shm.so.$SOVERSION" "$LIBDIR/libvalkey_shm.so.$VERSION"
	link "libvalkey_shm.so.$VERSION" "$LIBDIR/libvalkey_shm.so.$SOVERSION"
	link "libvalkey_shm.so.$SOVERSION" "$LIBDIR/libvalkey_shm.so"
	put 644 "$built/libvalkey_shm.a" "$LIBDIR/libvalkey_shm.a"
	put 644 "$built/include/valkey_shm.h" "$INCLUDEDIR/valkey_shm.h"
	filled packaging/pkgconfig/valkey_shm.pc.optional "$LIBDIR/pkgconfig/valkey_shm.pc"
fi

put 755 "$built/redis-shm" "$BINDIR/redis-shm"

for header in include/*.h; do put 644 "$header" "$INCLUDEDIR/${header##*/}"; done
# *.optional: above
for template in packaging/pkgconfig/*.in; do
	name=${template##*/}
	filled "$template" "$LIBDIR/pkgconfig/${name%.in}"
done
for template in packaging/cmake/*.in; do
	name=${template##*/}
	filled "$template" "$LIBDIR/cmake/hiredis_shm/${name%.in}"
done

for page in man/*.[1-9]; do manual "$page"; done
put 644 completions/redis-shm.bash "$DATADIR/bash-completion/completions/redis-shm"
put 644 completions/_redis-shm "$ZSHDIR/_redis-shm"
for document in LICENSE README.md CHANGELOG.md; do put 644 "$document" "$DOCDIR/$document"; done
for document in docs/*.md; do put 644 "$document" "$DOCDIR/$document"; done
for example in examples/*.c examples/*.py; do [ ! -e "$example" ] || put 644 "$example" "$DOCDIR/examples/${example##*/}"; done

if [ "$verb" = uninstall ]; then
	for dir in "$LIBDIR/cmake/hiredis_shm" "$DOCDIR/examples" "$DOCDIR/docs" "$DOCDIR" "$MODULEDIR" "${MODULEDIR%/modules}" "$PRELOADDIR"; do
		rmdir "$DESTDIR$dir" 2>/dev/null || :
	done
fi
