"""A program under `redis-shm run`, and what its connections came to.

    done = run(server, "redis-cli", "-s", server.path, "ping")      --require --stats on both of the server's endpoints
    done.upgraded, done.refused, done.stdout, done.returncode
"""
import re
import subprocess

from tool import TOOL, _env

SECONDS = 100


def argv(server, *command, options=("--require", "--stats"), endpoints=None):
    where = endpoints if endpoints is not None else (f"127.0.0.1:{server.port}", server.path)
    return [str(TOOL), "run"] + [x for e in where for x in ("--endpoint", e)] + [str(o) for o in options] + ["--"] + [str(a) for a in command]


def count(done):
    pairs = re.findall(r"^redis-shm run: .*: (\d+) connections upgraded, (\d+) not$", done.stderr, re.M)
    done.upgraded, done.refused = (sum(int(p[i]) for p in pairs) for i in (0, 1))
    return done


def run(server, *command, options=("--require", "--stats"), endpoints=None, env=None, input=None, text=True, seconds=SECONDS, **more):
    done = subprocess.run(argv(server, *command, options=options, endpoints=endpoints), input=input, capture_output=True, env=_env(env),
                          timeout=seconds, text=text, **more)
    if not text:
        done.stderr = done.stderr.decode()
    return count(done)


def used(server, done, at_least=1):
    """It ended well, each connection was in shared memory, bytes went both ways, and nothing is left."""
    from redis_server import eventually
    assert done.returncode == 0, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    assert done.upgraded >= at_least and done.refused == 0, done.stderr[-2000:]
    stats = server.stats()
    assert stats["sessions_opened"] >= done.upgraded and stats["bytes_in"] > 0 and stats["bytes_out"] > 0, stats
    assert stats["sessions_declined"] == 0 and stats["sessions_violated"] == 0, stats
    assert eventually(lambda: server.stats()["sessions"] == 0), server.stats()
    return done
