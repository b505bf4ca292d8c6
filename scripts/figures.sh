#!/bin/sh
# The runs behind docs/benchmarks.md, made with redis-shm bench: tables, JSON and charts into DIR. Ten minutes on an idle machine.
#
#   scripts/figures.sh [DIR]          DIR: build/bench/figures
#   REDIS_SHM=path SECONDS_A_ROW=2 scripts/figures.sh
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
dir=${1:-$root/build/bench/figures}
tool=${REDIS_SHM:-$root/build/redis-shm}
seconds=${SECONDS_A_ROW:-2}
modes=adaptive,poll,block
mkdir -p "$dir"

# figure NAME OPTION...: NAME.txt has the command and the table.
figure() {
	name=$1
	shift
	echo "$name: redis-shm bench --start --rounds 5 --seconds $seconds $*"
	{
		echo "redis-shm bench --start --rounds 5 --seconds $seconds $*"
		"$tool" bench --start --rounds 5 --seconds "$seconds" --quiet --json "$dir/$name.json" --plot "$dir/$name.svg" "$@" | tee "$dir/$name.out"
	} >"$dir/$name.txt" || { cat "$dir/$name.txt"; exit 1; }
	rm -f "$dir/$name.out"
}

figure transports --mode $modes
figure values --transport unix,shm --mode $modes --value-bytes 1,1KiB,16KiB,64KiB,1MiB
figure pauses --transport unix,shm --mode $modes --think-us 5,20,50,200,2000
figure clients --transport unix,shm --mode $modes --client async --clients 1,10,50,500
figure pipeline --transport unix,shm --mode $modes --pipeline 1,4,16,100
figure rates --transport unix,shm --mode $modes --rate 5000,20000,100000 --seconds $((seconds * 3))
echo "in $dir"
