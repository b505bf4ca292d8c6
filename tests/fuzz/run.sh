#!/bin/sh
# Fuzzes for some seconds: tests/fuzz/run.sh SECONDS TARGET...
#
# A TARGET is a libFuzzer program, build/fuzz/fuzz_NAME. Its seeds are tests/fuzz/corpus/NAME; what is found on the way is added to build/fuzz/corpus/NAME,
# and a case that fails is kept as build/fuzz/found-NAME-...: put it into tests/fuzz/corpus/NAME with its fix. Two run at a time.
# Last line: "N passed, N failed, N skipped". RESULTS=FILE as for tests/run.sh.

seconds=$1
shift
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
passed=0 failed=0
trap 'kill $pids 2>/dev/null; exit 130' INT TERM

finish() {
	for pair in $running; do
		name=${pair%%:*} pid=${pair#*:}
		if wait "$pid"; then
			passed=$((passed + 1))
			printf 'ok    fuzz/%s: %s\n' "$name" "$(sed -n 's/^Done \([0-9]*\) runs in \([0-9]*\).*/\1 inputs in \2 s/p' "$dir/log-$name")"
		else
			failed=$((failed + 1))
			printf 'FAIL  fuzz/%s\n' "$name"
			tail -40 "$dir/log-$name" | sed 's/^/      | /'
		fi
	done
	running='' pids=''
}

running='' pids='' n=0
for target; do
	name=$(basename "$target")
	name=${name#fuzz_}
	dir=$(dirname "$target")
	mkdir -p "$dir/corpus/$name" "$root/tests/fuzz/corpus/$name"
	"$target" -max_total_time="$seconds" -max_len=2048 -timeout=10 -rss_limit_mb=1024 -print_final_stats=0 -verbosity=1 \
		-artifact_prefix="$dir/found-$name-" "$dir/corpus/$name" "$root/tests/fuzz/corpus/$name" >"$dir/log-$name" 2>&1 &
	pids="$pids $!" running="$running $name:$!"
	n=$((n + 1))
	[ $((n % 2)) -ne 0 ] || finish
done
finish
[ -z "$RESULTS" ] || echo "$passed $failed 0" >>"$RESULTS"
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
