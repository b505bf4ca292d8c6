"""libvalkey_shm: the functions of libhiredis_shm for programs of libvalkey. Skips where there is no libvalkey (make libvalkey)."""
import os
import pathlib
import re
import shlex
import subprocess

import pytest

from redis_server import BUILD, ROOT

HERE = pathlib.Path(__file__).parent
ENV = dict(os.environ, PKG_CONFIG_PATH=f"{os.environ.get('PKG_CONFIG_PATH', '')}:{ROOT}/build/libvalkey/lib/pkgconfig")
FLAGS = subprocess.run(["pkg-config", "--cflags", "--libs", "valkey"], env=ENV, capture_output=True, text=True)

pytestmark = pytest.mark.skipif(FLAGS.returncode != 0 or not (BUILD / "libvalkey_shm.so").exists(),
                                reason="no libvalkey here, or libvalkey_shm not built: make libvalkey valkey")


def test_a_program_works_over_both_sockets_and_asynchronously(start_server, tmp_path):
    server = start_server()
    program = tmp_path / "app"
    subprocess.run(shlex.split(os.environ.get("CC") or "cc") + ["-Wall", "-Wextra", "-Werror", "-std=gnu11", "-o", program, HERE / "app.c", f"-I{BUILD}/include",
                   f"-L{BUILD}", f"-Wl,-rpath,{BUILD}:{ROOT}/build/libvalkey/lib", "-lvalkey_shm", *shlex.split(FLAGS.stdout)], check=True)
    done = subprocess.run([program, server.path, str(server.port)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "libvalkey over shared memory\n"), done
    stats = server.stats()
    assert stats["sessions_opened"] == 6 and stats["messages_in"] > 2000 and stats["sessions_violated"] == 0, stats


def test_it_exports_the_same_functions_under_its_own_names():
    def exported(library):
        lines = subprocess.run(["nm", "-D", "--defined-only", "--without-symbol-versions", BUILD / library], capture_output=True, text=True, check=True)
        return {line.split()[2] for line in lines.stdout.splitlines() if line.split()[1] == "T"}

    ours = exported("libvalkey_shm.so")
    assert ours == {re.sub("^redis", "valkey", name) for name in exported("libhiredis_shm.so")} and len(ours) >= 7
    header = (BUILD / "include" / "valkey_shm.h").read_text()
    assert not re.search(r"redis[A-Z]|hiredis", header), re.findall(r".*(?:redis[A-Z]|hiredis).*", header)
    assert all(re.search(rf"\b{name}\(", header) for name in ours)
