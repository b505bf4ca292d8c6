#!/usr/bin/python3
"""SIGKILL at random moments: of a client, of the server, of both.

    crash.py ROUNDS        SEED=n repeats the choices (not the moments at which they meet the system calls)

Held to: the survivor sees the end (the requirement is 100 ms; a round fails at 2 s, since other processes may hold the CPUs; the figures are printed); after the last
round the server has the descriptors, mappings and shared memory it started with; every acknowledged write is there, none twice.
"""
import sys

from field import Failed, Field, eventually, now_ms, random_source, run
import time

LATE_MS = 2000
WORKERS = 4


def rounds(n):
    rng = random_source()

    def body(f):
        clients, servers = [], []  # how long it took until the end was noticed: by the server, by clients

        def noticed_by_clients(at):
            """Each worker that was connected when the server died notes when it noticed."""
            end = time.monotonic() + LATE_MS / 1000
            for i in f.workers:
                while time.monotonic() < end and not any(t >= at for t in f.read(i)[2]):
                    time.sleep(0.005)
                late = [t for t in f.read(i)[2] if t >= at]
                if not late:
                    raise Failed(f"worker {i} did not notice the end of the server within {LATE_MS} ms")
                servers.append(late[0] - at)

        def all_at_work():
            marks = {i: len(f.read(i)[1]) for i in f.workers}
            if not eventually(lambda: all(len(f.read(i)[1]) > marks[i] for i in f.workers), 20):
                raise Failed("a worker is not served any more")

        f.start_server()
        f.start_worker("0")
        all_at_work()
        f.stop_workers()
        eventually(lambda: f.stats()["sessions"] == 0)
        start = f.resources()
        for i in f.ids:
            f.start_worker(i)
        kinds = {"client": 0, "server": 0, "both": 0}
        for _ in range(n):
            kind = rng.choices(["client", "server", "both"], [6, 3, 1])[0]
            kinds[kind] += 1
            all_at_work()
            time.sleep(rng.random() * 0.02)
            if kind != "server":
                victim = rng.choice(f.ids)
                sessions = sum(f.transports[i] == "shm" for i in f.ids) - (f.transports[victim] == "shm")
                f.kill_worker(victim)
                at = now_ms()
                del f.workers[victim]
                if kind == "client":
                    if not eventually(lambda: f.stats()["sessions"] == sessions, LATE_MS / 1000, 0.001):
                        raise Failed(f"the server did not notice the end of a client within {LATE_MS} ms")
                    clients.append(now_ms() - at)
            if kind != "client":
                noticed_by_clients(f.kill_server())
                f.start_server()
            if kind != "server":
                f.start_worker(victim)
        all_at_work()
        f.stop_workers()
        if not eventually(lambda: f.resources() == start, 5):
            raise Failed(f"(descriptors, mappings, bytes) were {start}, are {f.resources()}")
        f.kill_server()
        f.start_server()
        acknowledged = f.check()
        print(f"      {kinds}; {acknowledged} acknowledged writes, none lost or doubled")
        for who, took in (("server", clients), ("clients", servers)):
            if took:
                took.sort()
                print(f"      the {who} noticed an end after: median {took[len(took) // 2]} ms, 99 % {took[len(took) * 99 // 100]} ms, longest {took[-1]} ms")
    return body


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        sys.exit("usage: crash.py ROUNDS")
    run(f"crash: {sys.argv[1]} rounds of SIGKILL", Field(WORKERS), rounds(int(sys.argv[1])))
