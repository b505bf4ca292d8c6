#!/bin/sh
# Builds Debian packages of this tree for the release it runs on: redis-module-shm, libhiredis-shm0, libhiredis-shm-dev, redis-shm-tools.
# `make deb` runs it. Needs no root, and installs nothing.
#
#   packaging/deb.sh [DIRECTORY]      default build/deb; what was there before goes
#
# From the environment: VERSION and SOVERSION as in the Makefile; DEBFULLNAME and DEBEMAIL, who the maintainer is.
#
# Where the release's libhiredis-dev is older than 1.0 (Debian 12), the source package of the next release is built first, and its packages
# lie beside ours: install them together. Lintian looks at the result if it is installed; its errors are ours.
set -eu

top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
out=${1:-$top/build/deb}

say() { printf 'deb: %s\n' "$*"; }
fail() {
	printf 'deb: %s\n' "$*" >&2
	exit 1
}
# logged COMMAND...: its output into the log, and the end of that when it fails.
logged() { "$@" >>"$out/log" 2>&1 </dev/null || { tail -n 30 "$out/log" >&2 && return 1; }; }

os() { sed -n "s/^$1=\"\{0,1\}\([^\"]*\).*/\1/p" /etc/os-release; }
suffix="~$(os ID)$(os VERSION_ID)"

command -v dpkg-buildpackage >/dev/null && command -v dh >/dev/null || fail "needs dpkg-dev and debhelper: sudo apt-get install dpkg-dev debhelper"
rm -rf "$out"
mkdir -p "$out"
out=$(cd "$out" && pwd -P)

# ---- the source package ----

tree=$out/redis-shm-$VERSION
orig=$out/redis-shm_$VERSION.orig.tar.gz
when=
if git -C "$top" rev-parse --git-dir >/dev/null 2>&1; then
	[ -z "$(git -C "$top" status --porcelain --untracked-files=no)" ] || say "note: changes that are not committed are left out"
	git -C "$top" archive --prefix="redis-shm-$VERSION/" HEAD | gzip -n9 >"$orig"
	when=$(git -C "$top" log -1 --format=%cD)
else
	mkdir "$out/copy"
	(cd "$top" && tar -c --exclude=./build --exclude=./.git .) | tar -x -C "$out/copy"
	mv "$out/copy" "$tree"
	(cd "$out" && tar -c --sort=name --owner=0 --group=0 "redis-shm-$VERSION" | gzip -n9) >"$orig"
	rm -rf "$tree"
fi
tar -xzf "$orig" -C "$out"

maintainer="${DEBFULLNAME:-The redis-shm authors} <${DEBEMAIL:-redis-shm@example.org}>"
cp -r "$top/packaging/debian" "$tree/debian"
for file in "$tree"/debian/libhiredis-shm.*; do mv "$file" "$tree/debian/libhiredis-shm$SOVERSION.${file##*.}"; done
sed -i -e "s|@SOVERSION@|$SOVERSION|g" -e "s|@MAINTAINER@|$maintainer|" "$tree/debian/control"
{
	sed "s|@COPYRIGHT@|$(sed -n 's/^Copyright (c) //p' "$top/LICENSE")|" "$top/packaging/debian/copyright"
	sed -n '/^Permission/,$p' "$top/LICENSE" | sed -e 's/^$/./' -e 's/^/ /'
} >"$tree/debian/copyright"
cat >"$tree/debian/changelog" <<END
redis-shm ($VERSION-1$suffix) unstable; urgency=medium

  * Built from the project's own packaging.

 -- $maintainer  ${when:-$(date -R)}
END

# ---- hiredis, where it is too old ----

export DEB_BUILD_OPTIONS="${DEB_BUILD_OPTIONS:-parallel=$(nproc)}"
missing=$(cd "$tree" && dpkg-checkbuilddeps 2>&1 | sed -n 's/.*[Uu]nmet build dependencies: //p')
ours=$(printf '%s' "$missing" | sed 's/libhiredis-dev *([^)]*)//; s/^ *//; s/ *$//')
[ -z "$ours" ] || fail "needs $ours: install these packages"
unchecked=
if [ -n "$missing" ]; then
	at=$(LC_ALL=C apt-cache policy libhiredis-dev | sed -n 's/^  Candidate: //p')
	case $at in
	0.* | '(none)' | '') ;;
	*) fail "needs libhiredis-dev: sudo apt-get install libhiredis-dev" ;;
	esac
	say "libhiredis-dev is too old here ($at): building the next release's"
	"$top/scripts/deps.sh" source hiredis "$out/hiredis"
	dir=$(echo "$out"/hiredis/hiredis-*/)
	absent=$(cd "$dir" && dpkg-checkbuilddeps -P nocheck 2>&1 | sed -n 's/.*[Uu]nmet build dependencies: //p')
	[ -z "$absent" ] || fail "needs $absent, for hiredis: install these packages"
	sed -i "1s/)/$suffix)/" "$dir/debian/changelog"
	(cd "$dir" && DEB_BUILD_OPTIONS="nocheck $DEB_BUILD_OPTIONS" logged dpkg-buildpackage -us -uc -b -Pnocheck) || fail "hiredis did not build"
	mkdir "$out/unpacked"
	for package in "$out"/hiredis/*.deb; do
		case ${package##*/} in *-dbgsym_*) continue ;; esac
		name=${package##*/}
		dpkg-deb -R "$package" "$out/unpacked/${name%%_*}"
		cp "$package" "$out"
	done
	# One tree to compile with; dpkg-shlibdeps looks into each package.
	mkdir "$out/sysroot"
	for dir in "$out"/unpacked/*/; do cp -a "$dir/usr" "$out/sysroot"; done
	multiarch=$(dpkg-architecture -qDEB_HOST_MULTIARCH)
	sed -i "s|^prefix=.*|prefix=$out/sysroot/usr|; s|^libdir=.*|libdir=$out/sysroot/usr/lib/$multiarch|; s|=/usr/|=$out/sysroot/usr/|" \
		"$out/sysroot/usr/lib/$multiarch/pkgconfig/"hiredis*.pc
	export PKG_CONFIG_PATH="$out/sysroot/usr/lib/$multiarch/pkgconfig"
	HIREDIS_UNPACKED=$(find "$out/unpacked" -maxdepth 1 -name 'libhiredis[0-9]*' | head -n 1)
	export HIREDIS_UNPACKED
	unchecked=-d
fi

# ---- the packages ----

say "building, log in $out/log"
# The calling make's variables are not for this build.
(cd "$tree" && unset MAKEFLAGS MAKELEVEL MFLAGS MAKEOVERRIDES CFLAGS CPPFLAGS LDFLAGS CC AR O V SAN CROSS PREFIX DESTDIR &&
	logged dpkg-buildpackage -us -uc $unchecked) || fail "the packages did not build"
rm -rf "$tree" "$out/sysroot" "$out/unpacked" "$out/hiredis"
if command -v lintian >/dev/null; then
	say "lintian:"
	lintian --no-cfg --fail-on error --suppress-tags initial-upload-closes-no-bugs --allow-root "$out"/redis-shm_*.changes || fail "lintian has errors"
else
	say "lintian is not installed: not run"
fi
for package in "$out"/*.deb; do
	case $package in *-dbgsym_*) ;; *) echo "$package" ;; esac
done
