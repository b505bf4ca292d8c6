#!/usr/bin/python3
"""Nothing lost: writers over shared memory and sockets, with journals, while clients are killed, disconnected (CLIENT KILL) and the server forks (BGSAVE,
BGREWRITEAOF); the AOF is written before each reply. In the end the server is killed, started again, and asked for every acknowledged write.

    soak.py MINUTES        may be a fraction; SEED=n

Also held to: descriptors, mappings and shared memory as at the start, and memory of the server's process that does not grow with the number of connections.
"""
import sys
import time

import redis

from field import Failed, Field, eventually, random_source, run

WORKERS = 8
RSS_GROWTH_KB = 16384  # the data itself is counted apart; allocators keep something


def soak(minutes):
    rng = random_source()

    def body(f):
        f.start_server()
        for i in f.ids:  # every worker once, so that the server has been at its largest
            f.start_worker(i)
        time.sleep(1)
        f.stop_workers()
        eventually(lambda: f.stats()["sessions"] == 0)
        start = f.resources()
        info = f.client.info("memory")
        rss, data = f.rss_kb(), info["used_memory_dataset"] // 1024
        for i in f.ids:
            f.start_worker(i)
        end = time.monotonic() + minutes * 60
        did = {"SIGKILL of a client": 0, "CLIENT KILL": 0, "BGSAVE": 0, "BGREWRITEAOF": 0}
        while time.monotonic() < end:
            time.sleep(rng.random() * 0.2)
            what = rng.choices(list(did), [4, 4, 1, 1])[0]
            did[what] += 1
            if what == "SIGKILL of a client":
                i = rng.choice(f.ids)
                f.kill_worker(i)
                f.start_worker(i)
            elif what == "CLIENT KILL":
                mine = f.client.client_id()
                others = [c["id"] for c in f.client.client_list() if int(c["id"]) != mine]
                if others:
                    f.client.execute_command("CLIENT", "KILL", "ID", rng.choice(others))
            else:
                try:
                    f.client.execute_command(what)
                except redis.ResponseError:  # one is under way
                    did[what] -= 1
            for i, w in f.workers.items():
                if w.poll() is not None:
                    raise Failed(f"worker {i} ended with {w.returncode}")
        marks = {i: len(f.read(i)[1]) for i in f.ids}
        if not eventually(lambda: all(len(f.read(i)[1]) > marks[i] for i in f.ids), 20):
            raise Failed("a worker is not served any more")
        f.client.info()
        violated = f.stats()["sessions_violated"]
        if violated:
            raise Failed(f"{violated} well-behaved sessions were closed for breaking a rule")
        f.kill_server()  # in the middle of everything
        for w in f.workers.values():
            w.kill()
            w.wait()
        f.workers = {}
        f.start_server()
        acknowledged = f.check()
        print(f"      {did}; {acknowledged} acknowledged writes, none lost or doubled")
        # The second half of the question needs a server that has lived through it all: once more without its death.
        before = f.resources()[1:]
        for round in range(20):
            for i in f.ids:
                f.start_worker(i)
            time.sleep(0.2)
            for i in f.ids:
                f.kill_worker(i)
            f.workers = {}
        if not eventually(lambda: f.resources()[1:] == before == start[1:], 5):
            raise Failed(f"(mappings, bytes) were {start[1:]}, are {f.resources()[1:]}")
        grown = f.rss_kb() - rss - (f.client.info("memory")["used_memory_dataset"] // 1024 - data)
        print(f"      resident memory grew by {grown} KiB beside the data")
        if grown > RSS_GROWTH_KB:
            raise Failed(f"resident memory grew by {grown} KiB")
    return body


if __name__ == "__main__":
    try:
        minutes = float(sys.argv[1])
    except (IndexError, ValueError):
        sys.exit("usage: soak.py MINUTES")
    run(f"soak: {minutes:g} minutes", Field(WORKERS), soak(minutes))
