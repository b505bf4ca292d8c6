"""What a loaded module costs clients that do not use it: redis-benchmark over a Unix socket against a server with the module and no
session, and one without, taking turns. Server and benchmark have a CPU each where there are two.

    bench_noload.py [--rounds N] [--requests N] [--out FILE]        REDIS_SERVER, REDIS_BENCHMARK, RSHM_BUILD choose the programs
"""
import argparse
import csv
import io
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "server"))
from redis_server import Server  # noqa: E402

TESTS = ("SET", "GET")
CPUS = sorted(os.sched_getaffinity(0))


def on_cpu(n):
    return ["taskset", "-c", str(CPUS[n])] if len(CPUS) > 1 and shutil.which("taskset") else []


def measure(server, requests):
    """Requests per second of each test."""
    text = subprocess.run(on_cpu(1) + [os.environ.get("REDIS_BENCHMARK", "redis-benchmark"), "-s", server.path, "-t",
                                       ",".join(TESTS).lower(), "-n", str(requests), "-q", "--csv"],
                          check=True, capture_output=True, text=True).stdout
    rows = {r[0]: r for r in csv.reader(io.StringIO(text)) if r}
    return {t: float(rows[t][1]) for t in TESTS}


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("--rounds", type=int, default=15)
    a.add_argument("--requests", type=int, default=100_000)
    a.add_argument("--out")
    a = a.parse_args()
    servers = {"without": Server(module=False, prefix=on_cpu(0)), "with": Server(prefix=on_cpu(0))}
    figures = {name: {t: [] for t in TESTS} for name in servers}
    try:
        for s in servers.values():
            measure(s, a.requests // 4)  # warm up
        for i in range(a.rounds):
            for name in list(servers)[::1 if i % 2 == 0 else -1]:
                for t, rate in measure(servers[name], a.requests).items():
                    figures[name][t].append(rate)
    finally:
        for s in servers.values():
            s.stop()
    result = {"rounds": a.rounds, "requests": a.requests}
    print(f"redis-benchmark over a Unix socket, 50 clients, requests per second; median (min..max) of {a.rounds} rounds of {a.requests}\n")
    for t in TESTS:
        row = {}
        for name in servers:
            v = figures[name][t]
            row[name] = {"median": statistics.median(v), "min": min(v), "max": max(v)}
        pairs = [w / wo for w, wo in zip(figures["with"][t], figures["without"][t])]
        row["ratio"] = row["with"]["median"] / row["without"]["median"]
        row["ratio_of_pairs"] = {"median": statistics.median(pairs), "min": min(pairs), "max": max(pairs)}
        result[t] = row
        print(f"{t}  without {row['without']['median']:9.0f} ({row['without']['min']:.0f}..{row['without']['max']:.0f})   "
              f"with {row['with']['median']:9.0f} ({row['with']['min']:.0f}..{row['with']['max']:.0f})   "
              f"ratio {row['ratio']:.3f}, of pairs {row['ratio_of_pairs']['median']:.3f}")
    if a.out:
        pathlib.Path(a.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
