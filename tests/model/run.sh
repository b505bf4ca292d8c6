#!/bin/sh
# Explores the models of this directory with Spin, and shows that their mutants fail. Prints TAP: tests/run.sh, which
# `make test-model` runs it under, counts that. Exit status: 0, 1, or 77: no spin, or no compiler for what it writes.
#
#   run.sh                    all of it
#   run.sh MODEL [-DNAME]     one run, say `run.sh nonblocking -DOPENED_WITHOUT_A_BELL`, with the trace if it fails
#
# A model passes if the checker has seen every state: no search that ended early or was cut at a depth counts. A mutant is the same
# model with one thing wrong, and is there to show that the checker would see it.

models=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
compiler=${CC:-gcc}
command -v spin >/dev/null || { echo "no spin here (Debian: apt-get install spin)" && exit 77; }
command -v "${compiler%% *}" >/dev/null || { echo "no $compiler here" && exit 77; }
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

DEPTH=1000000  # steps of the longest run; four times what the deepest one needs
HASH=24        # 2^24 slots, for up to some 10^7 states
MEMORY_MB=3000 # so that a model that has grown ends as a failure and not in swap

# explore OPTIMIZE PAN_MACRO MODEL MACRO...: what the checker says goes to $dir/log.
explore() {
    ex_optimize=$1 ex_check=$2 ex_model=$3
    shift 3
    rm -rf "$dir"/pan* "$dir"/*.trail
    # shellcheck disable=SC2086
    (cd "$dir" && spin -a "$@" "$models/$ex_model.pml" &&
        $compiler $ex_optimize -w -D$ex_check -DMEMLIM=$MEMORY_MB -o pan pan.c &&
        if [ $ex_check = NP ]; then ./pan -l -m$DEPTH -w$HASH; else ./pan -m$DEPTH -w$HASH; fi) >"$dir/log" 2>&1
}

complete() { grep -q 'errors: 0$' "$dir/log" && ! grep -Eq 'not completed|too small|memory limit|out of memory|error:' "$dir/log"; }
states() { sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' "$dir/log" | head -n 1; }
trace() {
    sed 's/^/# /' "$dir/log"
    ls "$dir"/*.trail >/dev/null 2>&1 || return
    cp "$models/$1.pml" "$dir"
    tr_model=$1
    shift
    (cd "$dir" && spin -t -p -g -k "$tr_model".pml.trail "$@" "$tr_model".pml) | sed 's/^/# /' | tail -n 150
}

count=0 failed=0
say() { # say "ok" TEXT or say "not ok" TEXT
    count=$((count + 1))
    [ "$1" = ok ] || failed=$((failed + 1))
    echo "$1 $count - $2"
}

# passes CHECK TEXT MODEL MACRO...: every state is right.
passes() {
    pa_check=$1 pa_text=$2
    shift 2
    explore -O2 "$pa_check" "$@"
    if complete; then
        say ok "$1: $pa_text ($(states) states)"
    else
        say "not ok" "$1: $pa_text"
        trace "$@"
    fi
}

# fails CHECK MODEL MUTANT MACRO...: the checker finds what is wrong with it, and not something else (a syntax error, say).
fails() {
    fa_check=$1
    shift
    explore -O0 "$fa_check" "$@" -DMUTANT
    fa_model=$1 fa_mutant=${2#-D}
    fa_how=$(sed -n 's/^pan:1: \(.*\) (at depth [0-9]*)$/\1/p' "$dir/log" | tail -n 1)
    if [ -n "$fa_how" ]; then
        say ok "$fa_model: mutant $fa_mutant is caught: $fa_how"
    else
        say "not ok" "$fa_model: mutant $fa_mutant is not caught"
        sed 's/^/# /' "$dir/log"
    fi
}

if [ $# -gt 0 ]; then
    [ $# -eq 1 ] || set -- "$@" -DMUTANT
    explore -O2 SAFETY "$@"
    complete && echo "every state is right: $(states)" && exit
    trace "$@"
    exit 1
fi

SMALL='-DLINES=4 -DROOM=1'
# shellcheck disable=SC2086
{
    passes SAFETY "nobody sleeps for ever" wake
    passes SAFETY "nor when the other side is killed at any step" wake $SMALL -DKILL
    passes NP "no bells for ever without a record" wake $SMALL
    passes SAFETY "no reply stays without a bell" nonblocking
    passes SAFETY "nor when a bell finds the socket full" nonblocking -DSOCKET_ROOM=1
    passes NP "no bells for ever without a reply" nonblocking

    for mutant in NO_FENCE_PUBLISH NO_FENCE_RELEASE NO_FENCE_ARM_READER NO_FENCE_ARM_WRITER NO_SECOND_LOOK_READER \
        NO_SECOND_LOOK_WRITER NO_BELL NO_WAKE_ON_RELEASE WAKE_BEFORE_PUBLISHING DRAIN_AFTER_ARM_READER DRAIN_AFTER_ARM_WRITER \
        STANDING_REQUEST_TAKEN EXCHANGED ROOM_FORGOTTEN; do
        fails SAFETY wake -D$mutant
    done
    fails SAFETY wake -DROOM=7 # waiting for more than the reader gives back
    fails SAFETY wake -DEND_BEFORE_THE_REST $SMALL -DKILL
    for mutant in NO_FENCE_PUBLISH NO_FENCE_ARM NO_SECOND_LOOK BELL_NOT_REQUESTED BELL_NOT_ANSWERED RING_BEFORE_ASKING \
        DRAIN_AFTER_ARM BELL_REMEMBERED LEFT_UNANNOUNCED OPENED_WITHOUT_A_BELL STANDING_REQUEST_TAKEN EXCHANGED; do
        fails SAFETY nonblocking -D$mutant
    done
    fails NP nonblocking -DBELLS_FOR_NOTHING
}
echo "1..$count"
[ "$failed" -eq 0 ]
