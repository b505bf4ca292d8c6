"""Fixtures of the tests of an installed copy; the servers and the summary are those of tests/server.

    installed     an Installed: what `make install DESTDIR= PREFIX=` gave, moved to its prefix as a package manager would
"""
import importlib.util
import os
import pathlib
import shlex
import subprocess
import sys

import pytest

SERVER_TESTS = pathlib.Path(__file__).resolve().parents[1] / "server"
sys.path.insert(0, str(SERVER_TESTS))
_spec = importlib.util.spec_from_file_location("server_conftest", SERVER_TESTS / "conftest.py")
_server_conftest = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_server_conftest)
start_server = _server_conftest.start_server
pytest_runtest_makereport = _server_conftest.pytest_runtest_makereport
pytest_terminal_summary = _server_conftest.pytest_terminal_summary

from redis_server import ROOT  # noqa: E402

O = os.environ.get("RSHM_O", "build")
HIREDIS_LIBDIR = os.environ.get("RSHM_HIREDIS_LIBDIR") or str(ROOT / "build" / "deps" / "hiredis" / "lib")


def make(*words):
    done = subprocess.run(["make", "--no-print-directory", "-C", ROOT, f"O={O}", *map(str, words)], capture_output=True, text=True,
                          env={k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS")})
    assert done.returncode == 0, done
    return done


class Installed:
    def __init__(self, top):
        self.destdir = top / "stage"
        self.prefix = top / "opt"
        self.variables = [f"DESTDIR={self.destdir}", f"PREFIX={self.prefix}"]
        make("install", *self.variables)
        (pathlib.Path(f"{self.destdir}{self.prefix}")).rename(self.prefix)
        self.lib = self.prefix / "lib"
        self.module = self.lib / "redis" / "modules" / "module-shm.so"
        self.tool = self.prefix / "bin" / "redis-shm"
        self.env = dict(os.environ, PKG_CONFIG_PATH=f"{self.lib}/pkgconfig:{HIREDIS_LIBDIR}/pkgconfig",
                        LD_LIBRARY_PATH=f"{self.lib}:{HIREDIS_LIBDIR}", CMAKE_PREFIX_PATH=str(self.prefix))

    def pkg_config(self, *words):
        return shlex.split(subprocess.run(["pkg-config", *words], env=self.env, capture_output=True, text=True, check=True).stdout)

    def run(self, *argv, code=0):
        done = subprocess.run([str(a) for a in argv], env=self.env, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done
        return done.stdout

    def files(self):
        return sorted(str(p.relative_to(self.prefix)) for p in self.prefix.rglob("*") if not p.is_dir())


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("installed"))


@pytest.fixture
def server(start_server, installed):
    return start_server(module=False, args=["--loadmodule", installed.module])
