#!/bin/sh
# What the compiler does not check about the shape of the sources. Prints TAP; docs/design.md "Parts" and CONTRIBUTING.md have the rules.
#
#   tests/architecture.sh [TREE]    TREE: another copy of the sources
#
# The last test plants an error of each kind into a copy and wants each found.
set -eu

self=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)/architecture.sh
cd "${1:-$(dirname "$self")/..}"

# may LAYER: the layers it may include. fifo <- channel <- redirect <- module, preload; channel <- client <- tools. Tools also know what the
# preload library is told and reports.
may() {
	case $1 in
	fifo) echo fifo ;;
	channel) echo fifo channel ;;
	redirect) echo fifo channel redirect ;;
	module | preload) echo fifo channel redirect "$1" ;;
	client) echo fifo channel client ;;
	tools) echo fifo channel client preload tools ;;
	*) return 1 ;;
	esac
}

# public LAYER: the headers of include/ that it may use.
public() {
	case $1 in
	client | tools) echo charfifo.h hiredis_shm.h ;;
	*) echo charfifo.h ;;
	esac
}

layers() {
	for dir in src/*/; do
		layer=$(basename "$dir")
		allowed=$(may "$layer") || {
			echo "$dir: a directory that is no layer; tests/architecture.sh says which there are"
			continue
		}
		allowed=" $allowed "
		grep -rnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$dir" | while IFS= read -r line; do
			header=${line#*\"}
			header=${header%%\"*}
			case $header in
			schedule.h) continue ;; # tests/unit/schedule.h in place of the atomics, for test_schedules alone
			../* | */../*) echo "$line: no '..' in an include" ;;
			*/*) case $allowed in *" ${header%%/*} "*) ;; *) echo "$line: src/$layer may use only$allowed" ;; esac ;;
			*) case " $(public "$layer") " in *" $header "*) ;; *) [ -e "$dir$header" ] || echo "$line: src/$layer may not use $header" ;; esac ;;
			esac
		done
	done
	grep -rnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*["<](hiredis|async|hiredis/.*)\.h[">]' src/fifo src/channel src/redirect src/module |
		sed 's/$/: hiredis is for src\/client and src\/tools/' || :
	grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' include/*.h | sed 's/$/: public headers stand alone/' || :
}

orders() {
	# slots.c writes into the main program's memory, not into a segment; the tools' flags between their own threads are C11's.
	grep -rnE '__(atomic|sync)_|atomic_thread_fence|<stdatomic\.h>' src include | grep -vE '^src/(fifo/atomic\.h|module/slots\.c|tools/.*):' |
		sed 's/$/: memory orders are spelled in src\/fifo\/atomic.h only/' || :
}

# What a server may load beside any allocator: docs/design.md, "allocator".
heap() {
	grep -rnE '(^|[^a-z_.>])(malloc|calloc|realloc|strdup|free)\(' src/fifo src/channel src/redirect src/module |
		grep -vE ':[[:space:]]*(\*|/\*|//)' | sed 's/$/: nothing in the module or below it uses a heap/' || :
}

lengths() {
	find src include -name '*.[ch]' | while IFS= read -r file; do
		[ "$(wc -l <"$file")" -le 700 ] || echo "$file: longer than 700 lines; a file answers one question"
	done
}

versions() {
	version=$(sed -n 's/^VERSION := *//p' Makefile)
	case $version in [0-9]*.[0-9]*.[0-9]*) ;; *) echo "Makefile: VERSION is '$version'" ;; esac
	literal=$(echo "$version" | sed 's/\./\\./g')
	grep -rnE "(^|[^0-9.])$literal([^0-9.]|$)" src include packaging scripts docs man README.md | sed 's/$/: the version stands in Makefile alone/' || :
	grep -qE "^## .*$literal" CHANGELOG.md || echo "CHANGELOG.md: no heading for $version"
}

n=0 status=0
check() {
	n=$((n + 1))
	found=$($2)
	if [ -z "$found" ]; then
		echo "ok $n - $1"
	else
		echo "not ok $n - $1"
		echo "$found" | sed 's/^/# /'
		status=1
	fi
}

planted() {
	copy=$(mktemp -d)
	trap 'rm -rf "$copy"' EXIT
	cp -r src include packaging scripts docs man Makefile README.md CHANGELOG.md "$copy"
	mkdir "$copy/tests"
	# Each line: the test that must fail, and what makes it fail.
	while IFS='|' read -r number file text; do
		cp "$copy/$file" "$copy/saved"
		printf '%s\n' "$text" >>"$copy/$file"
		"$self" "$copy" 2>/dev/null | grep -q "^not ok $number " || echo "planted into $file and not found: $text"
		mv "$copy/saved" "$copy/$file"
	done <<-'END'
		1|src/fifo/charfifo.c|#include "channel/channel.h"
		1|src/channel/channel.c|#include "redirect/redirect.h"
		1|src/redirect/poller.c|  #  include "module/module.h"
		1|src/redirect/poller.c|#include "hiredis_shm.h"
		1|src/module/open.c|#include <hiredis/hiredis.h>
		1|src/client/sync.c|#include "redirect/session.h"
		1|src/tools/main.c|#include "module/module.h"
		1|src/client/sync.c|#include "../module/module.h"
		1|include/charfifo.h|#include "fifo/atomic.h"
		2|src/client/sync.c|x = __atomic_load_n(&y, __ATOMIC_SEQ_CST);
		3|src/channel/segment.c|p = malloc(5);
	END
	awk 'BEGIN { for (i = 0; i < 701; i++) print "" }' >"$copy/src/tools/long.c"
	echo "version $(sed -n 's/^VERSION := *//p' Makefile)" >>"$copy/README.md"
	"$self" "$copy" 2>/dev/null >"$copy/out" || :
	for number in 4 5; do grep -q "^not ok $number " "$copy/out" || echo "planted, but test $number passed"; done
}

[ $# -gt 0 ] && echo 1..5 || echo 1..6
check "includes follow the order of the layers" layers
check "memory orders are spelled in one header" orders
check "nothing in the module or below it uses a heap" heap
check "no source file is longer than 700 lines" lengths
check "the version stands in one place" versions
[ $# -gt 0 ] || check "an error of each kind that is planted is found" planted
exit $status
