#!/bin/bash
# Runs the committed tree of this repository in a fresh, minimal system: what a new user's machine would do with it.
#
#   scripts/clean-root.sh SUITE [DIR] [-- COMMAND...]      as root, with debootstrap
#
# SUITE    bookworm, trixie, jammy, noble, ... : what debootstrap knows
# DIR      where to make the root; it is kept. Without it: a temporary directory, removed at the end.
# COMMAND  run in the tree inside the root. Default: install make, make demo, make test.
# MIRROR   the archive; default: the one that this machine's apt uses, for releases of the same distribution
# EXTRA    a directory to copy into the tree inside the root, as extra
# KEYRING  key file for the archive; default: debootstrap's own choice for SUITE
#
# Everything happens in a mount and a process namespace of its own, so whatever the reason for the end, nothing stays mounted
# and no server stays behind. The network is the machine's. Exit status: COMMAND's.
set -eu -o pipefail

self=$(readlink -f "$0")
top=$(dirname "$(dirname "$self")")

say() { printf 'clean-root: %s\n' "$*"; }
fail() {
	printf 'clean-root: %s\n' "$*" >&2
	exit 2
}

# ---- inside the namespaces ----------------------------------------------------------------------------------------------

if [ "${1:-}" = --inside ]; then
	# As process 1 of the namespace we get only the signals that we catch. Leaving takes all others with us.
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	suite=$2 dir=$3 mirror=$4
	shift 4

	components=main
	case $mirror in *ubuntu*) components=main,universe ;; esac
	# All releases of a distribution have the same script; this machine's debootstrap may be older than SUITE.
	script=
	if [ ! -e "/usr/share/debootstrap/scripts/$suite" ]; then
		case $mirror in *ubuntu*) script=gutsy ;; *) script=sid ;; esac
	fi
	include=
	case $mirror in https:*) include=--include=ca-certificates ;; esac
	say "debootstrap $suite from $mirror"
	# shellcheck disable=SC2086
	debootstrap --variant=minbase --components=$components $include --force-check-gpg ${KEYRING:+--keyring="$KEYRING"} \
		"$suite" "$dir" "$mirror" $script >"$dir.log" 2>&1 || {
		tail -n 25 "$dir.log" >&2
		fail "debootstrap failed"
	}
	rm -f "$dir.log"

	# What this machine needs to reach the archive, the root needs too.
	cp -L /etc/resolv.conf /etc/hosts "$dir/etc/"
	apt-config dump | grep -i '^Acquire::[a-z]*::proxy' >"$dir/etc/apt/apt.conf.d/00proxy" || rm "$dir/etc/apt/apt.conf.d/00proxy"
	case $mirror in https:*) cp -L /etc/ssl/certs/ca-certificates.crt "$dir/etc/ssl/certs/" ;; esac

	mount -t proc proc "$dir/proc"
	mount -t sysfs -o ro sysfs "$dir/sys"
	mount -t tmpfs -o mode=755 dev "$dir/dev"
	for node in null zero full random urandom tty; do
		: >"$dir/dev/$node"
		mount --bind "/dev/$node" "$dir/dev/$node"
	done
	ln -s /proc/self/fd "$dir/dev/fd"
	ln -s /proc/self/fd/0 "$dir/dev/stdin"
	ln -s /proc/self/fd/1 "$dir/dev/stdout"
	ln -s /proc/self/fd/2 "$dir/dev/stderr"
	mkdir "$dir/dev/shm" "$dir/dev/pts"
	mount -t tmpfs -o mode=1777 shm "$dir/dev/shm"
	mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts "$dir/dev/pts"
	ln -s pts/ptmx "$dir/dev/ptmx"

	mkdir -p "$dir/root/redis-shm"
	git -C "$top" archive HEAD | tar -x -C "$dir/root/redis-shm"
	[ -z "${EXTRA:-}" ] || cp -r "$EXTRA" "$dir/root/redis-shm/extra"
	say "$suite: running $*"
	status=0
	env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM="${TERM:-dumb}" \
		${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
		chroot "$dir" /bin/sh -c 'cd /root/redis-shm && exec "$@"' sh "$@" || status=$?
	exit $status
fi

# ---- outside ------------------------------------------------------------------------------------------------------------

usage() {
	sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$self" >&2
	exit 2
}

[ $# -ge 1 ] || usage
case $1 in -*) usage ;; esac
suite=$1
shift
dir=
if [ $# -gt 0 ] && [ "$1" != -- ]; then
	dir=$1
	shift
fi
if [ $# -gt 0 ]; then
	[ "$1" = -- ] || usage
	shift
fi
[ $# -gt 0 ] || set -- sh -c 'apt-get update && apt-get install -y make && make demo && make test'

[ "$(id -u)" = 0 ] || fail "needs root"
for program in debootstrap unshare git; do
	command -v $program >/dev/null || fail "needs $program"
done
[ -z "$(git -C "$top" status --porcelain --untracked-files=no)" ] || say "note: changes that are not committed are left out"

mirror=${MIRROR:-}
if [ -z "$mirror" ]; then
	mirror=$("$top/scripts/deps.sh" mirrors | head -n 1 | cut -f 1)
	# mirror+file:/path is apt's own: a list of archives.
	case $mirror in mirror+file:*) mirror=$(grep -m 1 -o '^[a-z]*://[^[:space:]]*' "/${mirror#mirror+file:*/}") ;; esac
	[ -n "$mirror" ] || fail "apt's configuration names no archive; set MIRROR"
fi

keep=yes
if [ -z "$dir" ]; then
	keep=
	dir=$(mktemp -d "${TMPDIR:-/var/tmp}/clean-root.$suite.XXXXXX")
	chmod 755 "$dir"
else
	mkdir -p "$dir"
	[ -z "$(ls -A "$dir")" ] || fail "$dir is not empty"
	dir=$(readlink -f "$dir")
fi
cleanup() {
	if [ -z "$keep" ]; then rm -rf --one-file-system "$dir" "$dir.log"; fi
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

start=$SECONDS
status=0
unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
	"$self" --inside "$suite" "$dir" "$mirror" "$@" || status=$?
say "$suite: exit status $status after $((SECONDS - start)) s${keep:+, root kept in $dir}"
exit $status
