"""Fixtures of the tests against a real server; redis_server.py says which environment variables choose it.

    server        a server with the module that the tests of one file share: leave it as you found it
    start_server  start_server(args=[], config="", module_args=[], module=True, ...) -> Server, ended with the test
    shm           shm(server, unix=True, mode=None, **options) -> an open shared-memory Hiredis, freed with the test
    plain         the same as a plain socket connection: plain(server, unix=True, **options)
    compiled      compiled("faults.c") -> path of the shared object made of it
    faults        a control file of faults.c: faults.server_env for the server, faults.set("mmap", errno.ENOMEM), faults.clear()

A server that crashed, or left the log of one, fails the test that had it. STRICT=1: a skip is a failure. RESULTS=FILE: a line
"passed failed skipped" is appended to it.
"""
import os
import pathlib
import shlex
import subprocess

import pytest

from redis_server import Server, eventually
from shm_client import Hiredis

LOG_TAIL = 4000


def _connect(server, unix, options):
    if unix:
        return Hiredis(path=server.path, **options)
    return Hiredis(host="127.0.0.1", port=server.port, **options)


@pytest.fixture
def start_server():
    servers = []

    def start(**options):
        servers.append(Server(**options))
        return servers[-1]

    yield start
    wrong = [f"{problem}\n{s.last_log[-LOG_TAIL:]}" for s in servers for problem in s.stop()]
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def _module_server():
    s = Server()
    yield s
    wrong = s.stop()
    assert not wrong, "\n".join(wrong + [s.last_log[-LOG_TAIL:]])


@pytest.fixture
def server(_module_server):
    eventually(lambda: _module_server.stats()["sessions"] == 0)  # the last test's clients are gone, but perhaps not yet seen to be
    yield _module_server
    assert _module_server.alive(), "the server ended during this test\n" + _module_server.log()[-LOG_TAIL:]


@pytest.fixture
def plain():
    clients = []

    def connect(server, unix=True, **options):
        clients.append(_connect(server, unix, options))
        return clients[-1]

    yield connect
    for c in clients:
        c.free()


@pytest.fixture
def shm(plain):
    def connect(server, unix=True, mode=None, **options):
        c = plain(server, unix, **options)
        reply = c.use_shared_memory(mode)
        assert reply == 1 and c.is_shm(), reply
        return c

    return connect


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    done = {}

    def compile(source):
        if source not in done:
            out = tmp_path_factory.mktemp("lib") / (pathlib.Path(source).stem + ".so")
            subprocess.run(shlex.split(os.environ.get("CC") or "cc") + ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-o", out,
                           pathlib.Path(__file__).parent / source], check=True)
            done[source] = out
        return done[source]

    return compile


class Faults:
    def __init__(self, library, path):
        self.path = path
        self.server_env = {"LD_PRELOAD": str(library), "RSHM_FAULTS": str(path)}

    def set(self, *calls_and_errors):
        text = "".join(f"{call} {int(error)}\n" for call, error in zip(calls_and_errors[::2], calls_and_errors[1::2]))
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.replace(self.path)

    def clear(self):
        self.path.unlink(missing_ok=True)


@pytest.fixture
def faults(compiled, tmp_path):
    return Faults(compiled("faults.c"), tmp_path / "faults")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for s in Server.live:
            report.sections.append((f"log of redis-server {s.port}", s.log()[-LOG_TAIL:]))
    if report.skipped and os.environ.get("STRICT") == "1" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: skipped, and STRICT=1: {report.longrepr}"


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter):
    n = {what: len(terminalreporter.stats.get(what, [])) for what in ("passed", "failed", "error", "skipped", "xfailed", "xpassed")}
    passed, failed, skipped = n["passed"] + n["xpassed"], n["failed"] + n["error"], n["skipped"] + n["xfailed"]
    if os.environ.get("RESULTS"):
        with open(os.environ["RESULTS"], "a") as f:
            f.write(f"{passed} {failed} {skipped}\n")
    terminalreporter.write_line(f"{passed} passed, {failed} failed, {skipped} skipped")
