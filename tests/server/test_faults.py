"""The system says no, on either side: an error that names the reason, a plain connection, nothing left behind."""
import contextlib
import errno
import os
import resource
import subprocess
import sys

import pytest

from redis_server import eventually
from shm_client import ErrorReply
from wire import Wire

TRANSPORTS = pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])


def plain_again(c):
    assert not c.is_shm()
    for i in range(3):
        assert c.command("SET", "fault", str(i)) == b"OK" and c.command("GET", "fault") == str(i).encode()


def nothing_left(server, fds):
    stats = server.stats()
    assert stats["sessions"] == 0 and stats["memory_bytes"] == 0
    assert server.shared_mappings() == 0
    assert eventually(lambda: len(server.fds()) == fds), server.fds()


@TRANSPORTS
@pytest.mark.parametrize("call, error", [("memfd_create", errno.EMFILE), ("ftruncate", errno.EFBIG), ("fallocate", errno.ENOSPC),
                                         ("fcntl", errno.EPERM), ("mmap", errno.ENOMEM), ("madvise", errno.EINVAL),
                                         ("sendmsg", errno.EAGAIN), ("sendmsg", errno.ETOOMANYREFS)],
                         ids=lambda v: v if isinstance(v, str) else errno.errorcode[v])
def test_a_call_that_fails_on_the_server_leaves_a_plain_connection(start_server, plain, faults, unix, call, error):
    server = start_server(env=faults.server_env)
    c = plain(server, unix=unix)
    assert c.command("PING") == b"PONG"
    server.stats()
    fds = len(server.fds())
    faults.set(call, error)
    for _ in range(3):
        reply = c.use_shared_memory()
        assert isinstance(reply, ErrorReply) and os.strerror(error) in reply, reply
        plain_again(c)
        nothing_left(server, fds)
    assert server.stats()["refused_system"] == 3
    faults.clear()
    assert c.use_shared_memory() == 1 and c.command("GET", "fault") == b"2"


def test_fchmod_that_fails_leaves_a_plain_connection(start_server, plain, faults):
    server = start_server(env=faults.server_env)
    c = plain(server)
    faults.set("fchmod", errno.EPERM)
    reply = c.use_shared_memory(0o660)
    assert isinstance(reply, ErrorReply) and os.strerror(errno.EPERM) in reply
    plain_again(c)
    assert server.shared_mappings() == 0


@pytest.mark.parametrize("call, error", [("socket", errno.EMFILE), ("connect", errno.EACCES), ("connect", errno.EAGAIN),
                                         ("send", errno.EAGAIN)], ids=lambda v: v if isinstance(v, str) else errno.errorcode[v])
def test_a_rendezvous_that_fails_on_the_server_leaves_a_plain_connection(start_server, plain, faults, call, error):
    server = start_server(env=faults.server_env)
    c = plain(server, unix=False)
    assert c.command("PING") == b"PONG"
    server.stats()
    fds = len(server.fds())
    faults.set(call, error)
    reply = c.use_shared_memory()
    assert isinstance(reply, ErrorReply) and "SHM.OPEN" in reply, reply
    plain_again(c)
    nothing_left(server, fds)
    faults.clear()
    assert c.use_shared_memory() == 1 and c.command("GET", "fault") == b"2"


def test_a_server_out_of_descriptors_refuses_and_serves_on(start_server, plain):
    server = start_server()
    c = plain(server)
    assert c.command("PING") == b"PONG"
    soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (max(server.fds()) + 1, hard))
    reply = c.use_shared_memory()
    assert isinstance(reply, ErrorReply) and os.strerror(errno.EMFILE) in reply
    plain_again(c)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert c.use_shared_memory() == 1 and c.command("PING") == b"PONG"


@contextlib.contextmanager
def limit(what, value):
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))


def free_descriptors(n):
    """The limit under which exactly n more descriptors can be opened."""
    fds = [os.dup(0) for _ in range(n + 1)]
    for fd in fds:
        os.close(fd)
    return fds[-1]


@pytest.mark.parametrize("unix, free", [(True, 0), (False, 0), (False, 1), (False, 2)], ids=["unix", "tcp-0", "tcp-1", "tcp-2"])
def test_a_client_out_of_descriptors_gets_an_error_and_goes_on_over_its_socket(start_server, plain, unix, free):
    server = start_server()
    c = plain(server, unix=unix)
    assert c.command("PING") == b"PONG"
    with limit(resource.RLIMIT_NOFILE, free_descriptors(free)):
        reply = c.use_shared_memory()
        assert isinstance(reply, ErrorReply) and reply.startswith("ERR SHM.OPEN: "), reply
        plain_again(c)
    stats = server.stats()
    assert stats["sessions"] == 0 and stats["memory_bytes"] == 0 and stats["sessions_declined"] == (free > 0 or unix)
    assert server.shared_mappings() == 0
    assert c.use_shared_memory() == 1 and c.command("GET", "fault") == b"2"


@TRANSPORTS
def test_a_client_that_cannot_map_the_memory_declines_it_and_goes_on_over_its_socket(start_server, plain, unix):
    server = start_server(module_args=["ring-size", "128mb", "max-memory", "1gb"])
    c = plain(server, unix=unix)
    assert c.command("PING") == b"PONG"
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    with limit(resource.RLIMIT_AS, used + (64 << 20)):
        reply = c.use_shared_memory()
        assert isinstance(reply, ErrorReply) and os.strerror(errno.ENOMEM) in reply and "goes on over its socket" in reply, reply
        plain_again(c)
    assert server.stats()["sessions_declined"] == 1 and server.stats()["sessions"] == 0
    assert server.shared_mappings() == 0
    assert c.use_shared_memory() == 1 and c.command("GET", "fault") == b"2"


CLIENT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from shm_client import ErrorReply, Hiredis
path, port, control, call, error = sys.argv[2:7]
for options in ({"path": path}, {"port": int(port)}):
    for nonblock in (False, True):
        c = Hiredis(nonblock=nonblock, **options)
        say = c.command if not nonblock else lambda *a: (c.append(*a), c.wait_reply())[1]
        assert say("PING") == b"PONG"
        before = len(os.listdir("/proc/self/fd"))
        with open(control, "w") as f:
            f.write(call + " " + error + "\\n")
        reply = c.use_shared_memory()
        if nonblock:
            reply = c.wait_reply()
        assert isinstance(reply, ErrorReply) and "SHM.OPEN" in reply, reply
        assert not c.is_shm() and len(os.listdir("/proc/self/fd")) == before
        for i in range(3):
            assert say("SET", "fault", str(i)) == b"OK" and say("GET", "fault") == str(i).encode()
        os.unlink(control)
        reply = c.use_shared_memory()
        if nonblock:
            reply = c.wait_reply()
        assert reply == 1 and say("GET", "fault") == b"2" and c.is_shm()
        c.free()
print("fine")
"""


@pytest.mark.parametrize("call, error", [("mmap", errno.ENOMEM), ("recvmsg", errno.EMFILE), ("madvise", errno.EINVAL)],
                         ids=lambda v: v if isinstance(v, str) else errno.errorcode[v])
def test_a_call_that_fails_on_the_client_leaves_a_plain_connection(start_server, faults, call, error):
    server = start_server()
    env = dict(os.environ, **faults.server_env)
    done = subprocess.run([sys.executable, "-c", CLIENT, os.path.dirname(__file__), server.path, str(server.port), str(faults.path), call,
                           str(int(error))], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout == "fine\n", done.stdout + done.stderr
    assert eventually(lambda: server.stats()["sessions"] == 0) and server.shared_mappings() == 0
    assert server.stats()["sessions_declined"] == 4


def test_a_declined_session_counts_against_no_limit(start_server):
    server = start_server(module_args=["max-sessions", "1"])
    with Wire(server) as w:
        for _ in range(5):
            assert w.open() == 1
            assert w.works()
        assert server.stats()["sessions_declined"] == 5
        assert w.open_session().command("PING") == b"PONG"
