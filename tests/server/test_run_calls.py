"""The calls of libc's, one by one, on a connection in shared memory: tests/clients/calls.c does over it what it does over a socket."""
import functools
import os
import pathlib
import subprocess
import tempfile

import pytest

from redis_server import BUILD, ROOT, eventually
from run_program import run, used
from tool import PATIENCE

SOURCE = ROOT / "tests" / "clients" / "calls.c"
BUILDS = {"plain": ["-O1"], "fortified": ["-O2", "-D_FORTIFY_SOURCE=2"], "64-bit offsets": ["-O1", "-D_FILE_OFFSET_BITS=64"]}


@functools.lru_cache(None)
def program(build="plain"):
    path = pathlib.Path(tempfile.mkdtemp(prefix="rshm-calls-")) / "calls"
    subprocess.run([os.environ.get("CC", "cc"), "-g", "-pthread", *BUILDS[build], SOURCE, "-o", path], check=True, timeout=PATIENCE)
    return path


TESTS = [line.split('"')[1::2] for line in SOURCE.read_text().split("} tests[] = {")[1].split("};")[0].splitlines()]
TESTS = [name for line in TESTS for name in line]


@pytest.mark.parametrize("name", TESTS)
def test_call_over_a_socket(server, name):
    """What the test expects is what a socket does."""
    done = subprocess.run([program(), server.path, name], capture_output=True, text=True, timeout=70)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("name", TESTS)
def test_call(server, name, build):
    done = used(server, run(server, program(build), server.path, name))
    assert "line" not in done.stderr, done.stderr


@pytest.mark.parametrize("mode", ["poll", "block"])
@pytest.mark.parametrize("name", ["select-and-blocking-reads", "epoll", "timeouts", "shutdown", "two-threads", "full", "fork"])
def test_call_in_another_mode(server, name, mode):
    used(server, run(server, program(), server.path, name, options=["--require", "--stats", "--mode", mode]))


def test_a_daemon_keeps_the_connection_it_was_forked_with(server):
    plain = server.client()
    plain.delete("daemon")
    used(server, run(server, program(), server.path, "fork"))
    assert eventually(lambda: plain.get("daemon") == b"done")


def test_a_server_that_is_killed_ends_every_wait(start_server):
    server = start_server()
    code = f"""
import socket, select, threading
def connect():
    s = socket.socket(socket.AF_UNIX)
    s.connect({server.path!r})
    s.sendall(b"PING\\r\\n")
    assert s.recv(100) == b"+PONG\\r\\n"
    return s
a, b, c = connect(), connect(), connect()
def read(): assert a.recv(1) == b""
def poll():
    p = select.poll(); p.register(b, select.POLLIN); assert p.poll(30000); assert b.recv(1) == b""
def epoll():
    e = select.epoll(); e.register(c, select.EPOLLIN); assert e.poll(30); assert c.recv(1) == b""
threads = [threading.Thread(target=t) for t in (read, poll, epoll)]
[t.start() for t in threads]
print("up", flush=True)
[t.join() for t in threads]
"""
    import run_program
    process = subprocess.Popen(run_program.argv(server, "/usr/bin/python3", "-c", code), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    server.kill()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0 and "Error" not in err, err
