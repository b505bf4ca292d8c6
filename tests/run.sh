#!/bin/sh
# Runs test programs, prints a line per test and, last, "N passed, N failed, N skipped".
#
#   tests/run.sh 'program arguments' ...
#
# A program that prints a TAP plan counts by its tests (cmocka does so here); tests it announced but never reported failed.
# Any other program is one test: exit 0 passed, 77 skipped, anything else failed.
#
#   STRICT=1      a skip is a failure
#   RESULTS=FILE  appends "passed failed skipped"
#   TEST_TIMEOUT  seconds per program (default 180)

passed=0 failed=0 skipped=0
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT TERM
CMOCKA_MESSAGE_OUTPUT=TAP
export CMOCKA_MESSAGE_OUTPUT

for test in "$@"; do
    program=${test%% *}
    name=$(basename "$(dirname "$program")")/$(basename "$program")
    # In the foreground, so that Ctrl-C reaches the program. The words of $test are its arguments.
    # shellcheck disable=SC2086
    timeout --foreground -k 5 "${TEST_TIMEOUT:-180}" $test >"$log" 2>&1
    status=$?
    counts=$(awk -v name="$name" -v status="$status" -v strict="${STRICT:-0}" '
        function result(word, what) {
            if (word == "skip" && strict == 1) { word = "FAIL"; what = what " (skipped, and STRICT=1)" }
            n[word]++
            printf "%-4s  %s%s\n", word, name, what > "/dev/stderr"
        }
        /^[0-9]+\.\.[0-9]+/ { split($1, plan, "[.]+"); planned = plan[2]; tap = 1 }
        /^(not )?ok [0-9]/ {
            what = $0
            sub(/^(not )?ok [0-9]+( - )? */, "", what)
            reported++
            result(/# *[Ss][Kk][Ii][Pp]/ ? "skip" : /^not/ ? "FAIL" : "ok", ": " what)
        }
        END {
            if (!tap && !reported)
                result(status == 0 ? "ok" : status == 77 ? "skip" : "FAIL", status == 0 || status == 77 ? "" : ": exit " status)
            for (; reported && reported < planned; planned--)
                result("FAIL", ": planned, but never reported; exit " status)
            if (tap && !reported || reported && status != 0 && !n["FAIL"])
                result("FAIL", ": exit " status)
            print n["ok"] + 0, n["FAIL"] + 0, n["skip"] + 0
        }' "$log") || exit 1
    # shellcheck disable=SC2086
    set -- $counts
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
    if [ "$2" -gt 0 ] || [ "$3" -gt 0 ]; then
        sed 's/^/      | /' "$log" >&2
    fi
done

[ -z "$RESULTS" ] || echo "$passed $failed $skipped" >>"$RESULTS"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ $((passed + skipped)) -gt 0 ]
