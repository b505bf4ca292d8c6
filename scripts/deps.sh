#!/bin/sh
# Finds what `make demo` and `make test` need, and installs what is missing. `make deps` runs it.
#
#   DEPS=yes  (default) apt-get installs the missing packages, as root or through sudo. What the release packages only in
#             too old a version (hiredis on Debian 12, hiredis and redis on Ubuntu 22.04) is built from the source package
#             of a newer release of the same distribution, into build/deps; that part needs no root.
#   DEPS=no   leaves the system alone and says what is missing.
#
# Exit status: 0 everything is there, 1 something is missing.
#
#   deps.sh source NAME DIRECTORY    fetches a source package of the newer release and unpacks it there
#   deps.sh mirrors    prints the archives that this machine takes CODENAME from, best first: URI, tab, key file
#
# Debian 12, 13 and Ubuntu 22.04, 24.04 are tried; elsewhere it reports what it looked for and did not find.
set -eu

# One line each: check | Debian's package | what it is | what for.
needed() {
	cat <<-'END'
		prog gcc          | gcc            | gcc                  | compiles everything; brings the sanitizers of the tests
		header stdio.h    | libc6-dev      | C library headers    | compiles everything
		prog make         | make           | make                 | the build
		prog ld           | binutils       | binutils             | links; the tests look at symbols with nm and readelf
		prog pkg-config   | pkg-config     | pkg-config           | finds hiredis and cmocka
		hiredis           | libhiredis-dev | hiredis >= 1.0       | the client library that ours adds to
		redis             | redis-server   | redis-server >= 6.2  | the server that loads the module
		prog gnuplot      | gnuplot-nox    | gnuplot              | the chart of make demo
		pc cmocka         | libcmocka-dev  | cmocka               | the unit tests
		prog python3      | python3        | python3              | the server tests
		py pytest         | python3-pytest | pytest (for python3) | the server tests
		py redis          | python3-redis  | redis (for python3)  | the server tests
		prog spin         | spin           | spin                 | the model of sleep and wake
		pc libevent_core  | libevent-dev   | libevent             | asynchronous clients: redis-shm bench, tests, example
		pc zlib           | zlib1g-dev     | zlib                 | HdrHistogram logs of redis-shm bench
		pc libuv          | libuv1-dev     | libuv                | the asynchronous tests
		pc glib-2.0       | libglib2.0-dev | glib                 | the asynchronous tests
		header ev.h       | libev-dev      | libev                | the asynchronous tests
		prog ps           | procps         | ps                   | the tests look at processes
		prog openssl      | openssl        | openssl              | the tests make a certificate for a TLS connection
		prog ip           | iproute2       | ip                   | the tests make network namespaces
		prog zsh          | zsh            | zsh                  | the tests ask it what it completes
		prog cmake        | cmake          | cmake                | the install tests build a program with it
		prog abidiff      | abigail-tools  | abidiff              | compares the library with the last release's
		prog g++          | g++            | g++                  | the install tests build a program in C++
		prog clang        | clang          | clang                | the fuzz targets (libFuzzer), and a second compiler
		prog taskset      | util-linux     | taskset, chrt        | the benchmarks pin processes to cores
	END
}

# The release whose source package is taken where this one's package is too old.
newer_suite() {
	case $1 in
	bullseye | bookworm) echo trixie ;;
	focal | jammy) echo noble ;;
	esac
}

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
deps=$root/build/deps
python=${PYTHON:-/usr/bin/python3}
tmp=

say() { printf 'deps: %s\n' "$*"; }
fail() {
	printf 'deps: %s\n' "$*" >&2
	exit 1
}

cleanup() { [ -z "$tmp" ] || rm -rf "$tmp"; }
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# ---- what is there ------------------------------------------------------------------------------------------------------

# at_least 7.0.15 6 2: major and minor number.
at_least() {
	al_rest=${1#*.}
	al_major=${1%%.*}
	al_minor=${al_rest%%.*}
	case $al_major$al_minor in '' | *[!0-9]*) return 1 ;; esac
	[ "$al_major" -gt "$2" ] || { [ "$al_major" -eq "$2" ] && [ "$al_minor" -ge "$3" ]; }
}

# The Makefile puts both of our own directories in front in the same way.
PATH=$deps/redis/bin:$PATH
PKG_CONFIG_PATH=${PKG_CONFIG_PATH:+$PKG_CONFIG_PATH:}$deps/hiredis/lib/pkgconfig
export PATH PKG_CONFIG_PATH

have() {
	case $1 in
	prog) command -v "$2" ;;
	header) echo "#include <$2>" | gcc -E -x c - ;;
	pc) pkg-config --exists "$2" ;;
	hiredis) pkg-config --atleast-version=1.0 hiredis ;;
	redis) at_least "$(redis-server --version | sed -n 's/.* v=\([0-9][0-9.]*\).*/\1/p')" 6 2 ;;
	py) case " $python_has " in *" $2 "*) ;; *) return 1 ;; esac ;;
	esac >/dev/null 2>&1
}

# Sets missing: the lines of needed() that are not here, blanks around the bars removed.
look() {
	# A hiredis.pc names its directory; this tree may have been moved since.
	pc=$deps/hiredis/lib/pkgconfig/hiredis.pc
	if [ -f "$pc" ] && read -r first <"$pc" && [ "$first" != "prefix=$deps/hiredis" ]; then
		sed -i "1s|.*|prefix=$deps/hiredis|" "$pc"
	fi
	python_has=$(cd / && "$python" -c 'from importlib.util import find_spec
print(*[m for m in ("pytest", "redis") if find_spec(m)])' 2>/dev/null) || python_has=
	missing=
	while IFS='|' read -r check package what why; do
		# Unquoted: splits the check from its argument, and trims the package.
		# shellcheck disable=SC2086
		have $check || missing="$missing$(trim $check)|$(trim $package)|$(trim $what)|$(trim $why)
"
	done <<-END
		$(needed)
	END
}
trim() { echo "$*"; }

is_missing() {
	case "
$missing" in *"
$1|"*) ;; *) return 1 ;; esac
}

# ---- what to do about it ------------------------------------------------------------------------------------------------

# candidate PACKAGE MAJOR MINOR: what apt would install is this upstream version or newer. 2: apt knows no such package.
candidate() {
	version=$(LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: //p')
	case $version in '' | '(none)') return 2 ;; esac
	at_least "${version#*:}" "$2" "$3"
}

# plan_one CHECK PACKAGE SOURCE MAJOR MINOR: the package if it is new enough, else the source of a newer release. Before the
# first apt-get update no version is known; then the releases that newer_suite() names are those whose hiredis is too old.
plan_one() {
	is_missing "$1" || return 0
	status=0
	candidate "$2" "$4" "$5" || status=$?
	if [ $status = 0 ] || { [ $status = 2 ] && { [ -z "$suite" ] || [ "$1" = redis ]; }; }; then
		packages="$packages $2"
	else
		sources="$sources $3"
		case $version in '' | '(none)') version='no new enough version' ;; esac
		too_old="$too_old$3: this release packages $version
"
	fi
}

# Sets packages and sources.
plan() {
	packages=
	sources=
	too_old=
	while IFS='|' read -r check package what why; do
		case $check in '' | hiredis | redis) ;; *) packages="$packages $package" ;; esac
	done <<-END
		$missing
	END
	plan_one hiredis libhiredis-dev hiredis 1 0
	plan_one redis redis-server redis 6 2
	if [ -n "$sources" ] && ! command -v dpkg-source >/dev/null; then packages="$packages dpkg-dev"; fi
	case $sources in *' redis'*) have header jemalloc/jemalloc.h || packages="$packages libjemalloc-dev" ;; esac
	packages=${packages# }
	sources=${sources# }
}

# Says what is missing and how to get it, and ends.
report() {
	{
		[ -z "${1:-}" ] || printf 'deps: %s\n' "$1"
		echo "deps: missing:"
		printf '%s' "$missing" | while IFS='|' read -r check package what why; do
			printf '    %-22s %s\n' "$what" "$why"
		done
		if [ -z "$apt" ]; then
			echo "deps: this is not a system with apt-get. Looked for, and needed:"
			needed | while IFS='|' read -r check package what why; do
				printf '    %s  (%s)\n' "$what" "$(trim $check)"
			done
			echo "deps: programs are looked for in PATH, libraries with pkg-config, Python modules in $python"
		else
			[ -z "$packages" ] || {
				echo "deps: install with, as root,"
				echo "    apt-get update && apt-get install --no-install-recommends $packages"
			}
			for source in $sources; do
				if [ -n "$suite" ]; then
					echo "deps: $source: the package of this release is too old; make deps builds that of $suite into build/deps"
				else
					echo "deps: $source: the package of this release is too old, and no newer release is known here"
				fi
			done
		fi
		if is_missing hiredis; then echo "deps: for a hiredis of your own, set PKG_CONFIG_PATH to where its hiredis.pc is"; fi
	} >&2
	exit 1
}

# ---- packages -----------------------------------------------------------------------------------------------------------

# Runs as root with the packages as arguments. While policy-rc.d says 101, no package starts a service (invoke-rc.d(8)); a
# machine that has a policy of its own keeps it.
install_as_root='
set -eu
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
policy=/usr/sbin/policy-rc.d
mark="# redis-shm: written by make deps, gone when it ends"
if [ ! -e $policy ] || grep -qxF "$mark" $policy; then
	trap "rm -f $policy" EXIT
	trap "exit 130" INT
	trap "exit 143" TERM HUP
	printf "#!/bin/sh\n%s\nexit 101\n" "$mark" >$policy
	chmod 755 $policy
fi
apt-get -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install --no-install-recommends "$@"
for package; do
	# Its unit would start at the next boot.
	if [ "$package" = redis-server ] && [ -d /run/systemd/system ]; then systemctl disable redis-server.service; fi
done
'

# Sets sudo, or fails when there is no way to be root.
become_root() {
	sudo=
	[ "$(id -u)" != 0 ] || return 0
	command -v sudo >/dev/null || return 1
	if sudo -n true 2>/dev/null; then
		sudo='sudo -n'
	elif [ -t 0 ] && [ -t 2 ]; then
		sudo=sudo
	else
		return 1
	fi
}

# logged TEXT COMMAND...: says TEXT, keeps the output in $log, and shows its end when COMMAND fails.
logged() {
	say "$1"
	shift
	"$@" >>"$log" 2>&1 </dev/null || {
		lg_status=$?
		tail -n 25 "$log" >&2
		return $lg_status
	}
}

install_packages() {
	say "installing with apt-get, log in build/deps/log:"
	for package in $packages; do
		case $package in
		dpkg-dev) reason='dpkg-source           unpacks the source package' ;;
		libjemalloc-dev) reason='jemalloc              the allocator of redis' ;;
		*) reason=$(printf '%s' "$missing" | awk -F'|' -v p="$package" '$2 == p { printf "%-20s  %s", $3, $4; exit }') ;;
		esac
		printf '    %-16s %s\n' "$package" "$reason"
	done
	case " $packages " in *" redis-server "*)
		if [ -d /run/systemd/system ]; then say "the service of redis-server is neither started nor enabled"; fi
		;;
	esac
	# shellcheck disable=SC2086
	logged "apt-get install ..." $sudo sh -c "$install_as_root" sh $packages || fail "apt-get install failed"
}

# ---- source packages of the newer release -------------------------------------------------------------------------------

# mirrors CODENAME: the archives that apt's own configuration takes CODENAME from, best first: URI, tab, key file or nothing.
mirrors() {
	list='' parts=''
	eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
	# The distribution's own files first; other archives may have a suite of the same name.
	set -- "$1" "$list" "$parts"debian.sources "$parts"ubuntu.sources "$parts"*.sources "$parts"*.list
	mr_suite=$1
	shift
	for file; do
		shift
		[ ! -r "$file" ] || set -- "$@" "$file"
	done
	[ $# -gt 0 ] || return 0
	awk -v want="$mr_suite" '
		function offer(    i, n, suite) {
			if (uri == "" || uri ~ /^cdrom:/ || (" " comps " ") !~ / main /) return
			if (key !~ /^\//) key = ""
			n = split(suites, suite, " ")
			for (i = 1; i <= n; i++) {
				if (suite[i] == want) print uri "\t" key
				else if (suite[i] ~ /^((old)*stable|testing)$/) later = later uri "\t" key "\n"
			}
		}
		function stanza() {                             # the end of one in a .sources file
			if ((" " types " ") ~ / deb / && enabled !~ /^(no|false|0|off|disable)$/) offer()
			types = uri = suites = comps = key = enabled = field = ""
		}
		FNR == 1 { stanza() }
		/^[ \t]*#/ { next }
		FILENAME !~ /\.sources$/ {                      # deb [options] uri suite component...
			sub(/#.*/, "")
			if ($1 != "deb") next
			key = ""
			if (match($0, /\[[^]]*\]/)) {
				options = substr($0, RSTART + 1, RLENGTH - 2)
				$0 = substr($0, 1, RSTART - 1) " " substr($0, RSTART + RLENGTH)
				if (match(options, /signed-by=[^ \t]*/)) key = substr(options, RSTART + 10, RLENGTH - 10)
			}
			uri = $2; suites = $3
			$1 = $2 = $3 = ""
			comps = $0
			offer()
			uri = ""
			next
		}
		/^[ \t]*$/ { stanza(); next }
		{
			value = $0
			if ($0 !~ /^[ \t]/) {
				field = tolower($1); sub(/:.*/, "", field)
				sub(/^[^:]*:/, "", value)
			}
			gsub(/^[ \t]+|[ \t]+$/, "", value); gsub(/[ \t]+/, " ", value)
			if (field == "types") types = types " " value
			else if (field == "uris" && uri == "") { uri = value; sub(/ .*/, "", uri) }
			else if (field == "suites") suites = suites " " value
			else if (field == "components") comps = comps " " value
			else if (field == "signed-by" && key == "") key = value
			else if (field == "enabled") enabled = tolower(value)
		}
		END { stanza(); printf "%s", later }
	' "$@" | awk '!seen[$0]++'
}

# Reads the newer release's index of source packages into $tmp/apt. The system's sources and lists stay as they are; apt
# checks the signature with the key file that the machine uses for its own release.
open_newer_release() {
	mkdir -p "$tmp/apt/lists/partial" "$tmp/apt/cache/archives/partial" "$tmp/src"
	cat >"$tmp/apt/apt.conf" <<-END
		Dir::Etc::sourcelist "$tmp/apt/newer.list";
		Dir::Etc::sourceparts "/dev/null";
		Dir::Etc::preferences "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
		Dir::State::lists "$tmp/apt/lists";
		Dir::Cache "$tmp/apt/cache";
		Acquire::Languages "none";
		Acquire::Retries "3";
		APT::Sandbox::User "root"; // as root, apt would change to a user who may not read this directory
		#clear APT::Update;
		#clear APT::Default-Release;
	END
	mirrors "$codename" >"$tmp/mirrors"
	[ -s "$tmp/mirrors" ] || fail "apt's configuration names no archive of $codename: cannot look for $suite there"
	while IFS='	' read -r uri key; do
		echo "deb-src ${key:+[signed-by=$key] }$uri $suite main $universe" >"$tmp/apt/newer.list"
		if logged "reading the index of $suite's source packages from $uri ..." read_index; then return 0; fi
	done <"$tmp/mirrors"
	fail "cannot read $suite from this machine's archives. If apt says NO_PUBKEY above, the machine's key file does not hold
      the keys of $suite: upgrade the package $keyring and try again. Or install $sources yourself."
}

# An archive that does not answer is a mere warning to apt-get update.
read_index() {
	apt-get -q -c "$tmp/apt/apt.conf" update &&
		apt-get -c "$tmp/apt/apt.conf" indextargets 'Created-By: Sources' | grep -q .
}

# get_source NAME: sets dir, the unpacked directory.
get_source() {
	# The signed index vouches for the files; dpkg-source unpacks them.
	logged "fetching the source package $1 of $suite ..." in_dir "$tmp/src" apt-get -q -c "$tmp/apt/apt.conf" source --only-source "$1" ||
		fail "cannot fetch the source package $1"
	for dir in "$tmp/src/$1"-*/; do :; done
	[ -d "$dir" ] || fail "the source package $1 did not unpack"
}
in_dir() { (cd "$1" && shift && "$@"); }

# The calling make's variables (CFLAGS=-fsanitize=..., CC=clang, O=...) are not for other people's builds.
foreign_make() {
	env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS -u MAKEOVERRIDES -u CFLAGS -u CPPFLAGS -u LDFLAGS -u CC -u AR -u O -u V -u SAN \
		-u CROSS -u PREFIX -u DESTDIR -u OPT make -s -j"$(nproc)" "$@"
}

build_hiredis() {
	get_source hiredis
	logged "building hiredis ..." foreign_make -C "$dir" install CC=gcc WARNINGS= PREFIX=/hiredis DESTDIR="$tmp/stage" ||
		fail "cannot build hiredis"
	rm -rf "$tmp/stage/hiredis/lib/cmake"
	# Only the first line names the place; look() renews it after a move.
	sed -i "s|=/hiredis/|=\${prefix}/|; 1s|.*|prefix=$deps/hiredis|" "$tmp/stage/hiredis/lib/pkgconfig/hiredis.pc"
	place hiredis
}

build_redis() {
	get_source redis
	logged "building redis (a minute or two) ..." foreign_make -C "$dir/src" install CC=gcc OPT=-O2 \
		MALLOC=jemalloc USE_SYSTEM_JEMALLOC=yes PREFIX="$tmp/stage/redis" ||
		fail "cannot build redis"
	place redis
}

place() {
	rm -rf "${deps:?}/$1"
	mv "$tmp/stage/$1" "$deps/$1"
	say "$1 is in build/deps/$1"
}

# -------------------------------------------------------------------------------------------------------------------------

os() { sed -n "s/^$1=\"\{0,1\}\([^\"]*\).*/\1/p" /etc/os-release 2>/dev/null || :; }

apt=$(command -v apt-get || :)
# A derivative names the release it is made from in the second or third.
codename=
for field in UBUNTU_CODENAME DEBIAN_CODENAME VERSION_CODENAME; do [ -n "$codename" ] || codename=$(os $field); done

suite=$(newer_suite "$codename")
universe=
keyring=debian-archive-keyring
[ "$suite" != noble ] || { universe=universe && keyring=ubuntu-keyring; }

case ${1:-} in
mirrors)
	mirrors "$codename"
	exit
	;;
source)
	[ -n "$suite" ] || fail "no newer release than $codename is known here"
	sources=$2
	mkdir -p "$deps" "$3"
	tmp=$(mktemp -d "$deps/tmp.source.XXXXXX")
	log=$tmp/log
	open_newer_release
	get_source "$2"
	mv "$tmp/src"/* "$3"
	exit
	;;
esac

look
[ -n "$missing" ] || exit 0

packages=
sources=
[ -n "$apt" ] || report
plan
case ${DEPS:-yes} in
yes) ;;
no) report ;;
*) fail "DEPS is yes or no, not $DEPS" ;;
esac

mkdir -p "$deps"
if command -v flock >/dev/null; then
	exec 9>"$deps/lock"
	flock -n 9 || {
		say "waiting for another make deps in this tree"
		flock 9
		look
		[ -n "$missing" ] || exit 0
		plan
	}
fi
rm -rf "$deps"/tmp.* # of a run that was killed
tmp=$(mktemp -d "$deps/tmp.XXXXXX")
log=$deps/log
: >"$log"

if [ -n "$packages" ]; then
	become_root || report "installing packages needs root or sudo"
	# shellcheck disable=SC2086
	logged "apt-get update ..." $sudo apt-get -q -o DPkg::Lock::Timeout=300 update || fail "apt-get update failed"
	plan # now the versions are known
	install_packages
fi
if [ -n "$sources" ]; then
	[ -n "$suite" ] || report
	printf '%s' "$too_old" | while read -r line; do say "$line, building that of $suite"; done
	open_newer_release
	for source in $sources; do build_"$source"; done
fi

look
if [ -n "$missing" ]; then
	plan
	report "still missing after all this"
fi
say "everything needed is here"
