#!/bin/sh
# Builds libvalkey, shared, with headers and valkey.pc, for the tests of libvalkey_shm. `make libvalkey` runs it.
#
#   scripts/libvalkey.sh DIRECTORY
#
# Debian 12 and 13 package no libvalkey. Its source is in the source archive of the Python package libvalkey, which pip fetches and checks.
# Without TLS, RDMA and cluster.
set -eu

dir=$1 version=4.2.1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
fail() {
	printf 'libvalkey: %s\n' "$*" >&2
	exit 1
}

"${PYTHON:-python3}" -m pip --version >/dev/null 2>&1 || PYTHON=python3
"${PYTHON:-python3}" -m pip -q download "libvalkey==$version" --no-deps --no-binary :all: -d "$tmp" >"$tmp/log" 2>&1 || {
	tail -n 5 "$tmp/log" >&2
	fail "pip could not fetch libvalkey $version"
}
tar -xzf "$tmp/libvalkey-$version.tar.gz" -C "$tmp"
source=$tmp/libvalkey-$version/vendor/libvalkey
[ -d "$source/src" ] || fail "the archive has no vendor/libvalkey"
rm -rf "$dir"
mkdir -p "$dir/lib/pkgconfig" "$dir/include"
cp -r "$source/include/valkey" "$dir/include"
(cd "$source/src" && "${CC:-cc}" -shared -fPIC -O2 -std=gnu99 -I../include -I../include/valkey -I. -Wl,-z,defs -Wl,-soname,libvalkey.so.0 -o "$dir/lib/libvalkey.so.0" \
	alloc.c async.c conn.c dict.c dns.c net.c read.c sds.c sockcompat.c timer.c valkey.c -pthread) || fail "it did not compile"
ln -s libvalkey.so.0 "$dir/lib/libvalkey.so"
number() { sed -n "s/^#define LIBVALKEY_VERSION_$1 \([0-9]*\)/\1/p" "$dir/include/valkey/valkey.h"; }
cat >"$dir/lib/pkgconfig/valkey.pc" <<END
prefix=$dir
Name: valkey
Description: Client library for Valkey
Version: $(number MAJOR).$(number MINOR).$(number PATCH)
Libs: -L\${prefix}/lib -lvalkey
Cflags: -I\${prefix}/include
END
echo "libvalkey $(number MAJOR).$(number MINOR).$(number PATCH) is in $dir"
