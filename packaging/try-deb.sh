#!/bin/sh
# Installs the packages of build/deb in the system it runs in, uses them, removes them, and looks for what is left. For a fresh root directory,
# as root: scripts/deb-roots.sh runs it there.
set -eu
export DEBIAN_FRONTEND=noninteractive

say() { printf 'try-deb: %s\n' "$*"; }
fail() {
	printf 'try-deb: %s\n' "$*" >&2
	exit 1
}

# A package installed here must not start a service.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
apt-get -q -q update
apt-get -q -q -y install --no-install-recommends redis-server procps gcc libc6-dev pkg-config >/dev/null

top=$PWD
debs=$(find "$PWD/build/deb" -name '*.deb' ! -name '*-dbgsym_*')
before=$(mktemp)
everything() { find / -xdev \( -path /proc -o -path /tmp -o -path /dev -o -path /sys -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/log -o -path "$top" \) -prune -o -print | sort; }
everything >"$before"

say "installing"
# shellcheck disable=SC2086
apt-get -q -q -y install --no-install-recommends $debs >/dev/null
ours=$(dpkg-query -W -f '${Package} ${source:Package}\n' | awk '$2 == "redis-shm" { print $1 }')
[ "$(echo "$ours" | wc -l)" -ge 4 ] || fail "installed were only: $ours"
echo "$ours" | sed 's/^/    /'

cd /tmp
say "the demo"
redis-shm demo --out /tmp/demo --rounds 2 || fail "the demo failed"
[ -s /tmp/demo/latency.json ] || fail "the demo left no latency.json"

say "a server with the installed module, and doctor"
redis-server --port 6399 --unixsocket /tmp/redis.sock --save '' --loadmodule /usr/lib/redis/modules/module-shm.so >/tmp/server.log 2>&1 &
server=$!
trap 'kill $server 2>/dev/null || :' EXIT
tries=0
until redis-cli -p 6399 ping >/dev/null 2>&1; do
	tries=$((tries + 1))
	[ $tries -lt 100 ] || { cat /tmp/server.log && fail "the server did not start"; }
	sleep 0.1
done
redis-shm doctor -p 6399 || fail "doctor found that it does not work"

say "a program built against the -dev package"
example=/usr/share/doc/libhiredis-shm-dev/examples/sync.c
[ -e $example ] || { gunzip -k <$example.gz >/tmp/sync.c && example=/tmp/sync.c; }
# shellcheck disable=SC2046
gcc -o /tmp/sync "$example" $(pkg-config --cflags --libs hiredis_shm)
/tmp/sync 127.0.0.1 6399 | grep 'Using shared memory from now on!'
kill $server
wait $server 2>/dev/null || :
trap - EXIT

say "removing"
# shellcheck disable=SC2046
apt-get -q -q -y purge $(for deb in $debs; do dpkg-deb -f "$deb" Package; done) >/dev/null
apt-get -q -q -y --purge autoremove >/dev/null
left=$(everything | comm -13 "$before" - | grep -E 'shm|charfifo|hiredis|/doc/|/man/|^/etc/' || :)
[ -z "$left" ] || fail "left behind:
$left"
say "installed, used and removed; nothing is left"
