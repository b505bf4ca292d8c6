"""An installed copy as its users see it: what is there, what it exports, and programs built with pkg-config and with CMake."""
import os
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest

from conftest import HIREDIS_LIBDIR, make
from redis_server import ROOT

HERE = pathlib.Path(__file__).parent
CC = shlex.split(os.environ.get("CC") or "cc")
CXX = ["clang++"] if "clang" in CC[0] and shutil.which("clang++") else ["c++"]
VERSION = re.search(r"(?m)^VERSION := (.*)$", (ROOT / "Makefile").read_text()).group(1)
MAJOR = VERSION.split(".")[0]


def exported(library):
    """Its dynamic symbols, without versions and the linker's own."""
    lines = subprocess.run(["nm", "-D", "--defined-only", "--without-symbol-versions", library], capture_output=True, text=True, check=True).stdout
    return {name for kind, name in (line.split()[-2:] for line in lines.splitlines()) if kind != "A"}


def mapped(path):
    return set(re.findall(r"(?m)^\s+(\w+);", (ROOT / path).read_text().split("local:")[0]))


def declared(header):
    text = re.sub(r"(?s)/\*.*?\*/", "", (ROOT / "include" / header).read_text())
    return set(re.findall(r"\b((?:redis|charfifo_)\w+)\((?!\*)", text))


def test_every_file_is_where_it_belongs(installed):
    there = set(installed.files())
    for path in ["bin/redis-shm", "include/hiredis_shm.h", "include/charfifo.h", "lib/redis/modules/module-shm.so", "lib/libcharfifo.a",
                 "lib/libhiredis_shm.a", "lib/libhiredis_shm.so", f"lib/libhiredis_shm.so.{MAJOR}", f"lib/libhiredis_shm.so.{VERSION}",
                 "lib/pkgconfig/hiredis_shm.pc", "lib/pkgconfig/charfifo.pc", "lib/cmake/hiredis_shm/hiredis_shm-config.cmake",
                 "share/doc/redis-shm/LICENSE", "share/doc/redis-shm/examples/sync.c", "share/man/man1/redis-shm.1"]:
        assert path in there, path
    assert not [p for p in there if re.search(r"\.new\d*$", p)]


def test_nothing_installed_names_the_build_or_the_staging_directory(installed):
    for name in installed.files():
        path = installed.prefix / name
        content = path.read_bytes()
        assert str(installed.destdir).encode() not in content, name
        if not name.startswith(("lib/lib", "lib/redis", "bin/")):  # debugging information names sources
            assert str(ROOT).encode() not in content, name
    for name in ["bin/redis-shm", f"lib/libhiredis_shm.so.{VERSION}", "lib/redis/modules/module-shm.so"]:
        dynamic = subprocess.run(["readelf", "-d", installed.prefix / name], capture_output=True, text=True, check=True).stdout
        paths = re.findall(r"R(?:UN)?PATH.*\[(.*)\]", dynamic)
        assert not [p for p in paths if p.startswith(str(ROOT))], paths


def test_only_the_mapped_symbols_are_exported(installed):
    functions = declared("hiredis_shm.h")
    assert len(functions) >= 7
    library = installed.lib / "libhiredis_shm.so"
    assert exported(library) == mapped("src/client/libhiredis_shm.map") == functions
    assert exported(installed.module) == mapped("src/module/module-shm.map")
    soname = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    assert f"[libhiredis_shm.so.{MAJOR}]" in soname


def test_the_static_fifo_has_what_its_header_says_and_needs_nothing(installed):
    lines = subprocess.run(["nm", "-g", installed.lib / "libcharfifo.a"], capture_output=True, text=True, check=True).stdout
    defined = set(re.findall(r" T (\w+)", lines))
    assert defined == declared("charfifo.h")
    if not os.environ.get("RSHM_SAN"):
        assert set(re.findall(r"^ +U (\w+)", lines, re.M)) <= {"memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}


def test_the_version_is_the_same_everywhere(installed, server):
    assert installed.run(installed.tool, "--version") == f"redis-shm {VERSION}\n"
    assert installed.pkg_config("--modversion", "hiredis_shm") == [VERSION]
    number = int("%d%02d%02d" % tuple(int(n) for n in VERSION.split(".")))
    row = [m for m in server.client().module_list() if m[b"name"] == b"shm"][0]
    assert row[b"ver"] == number
    assert server.stats()["version"] == number
    assert server.client().info("shm")["shm_version"] == number
    assert f"version {VERSION} ready" in server.log()


@pytest.mark.parametrize("static", [False, True], ids=["shared", "static"])
def test_a_c_program_built_with_pkg_config_runs(installed, server, tmp_path, static):
    flags = installed.pkg_config("--cflags", "--libs", "hiredis_shm")
    assert "-lhiredis" in flags and "-lhiredis_shm" in flags
    if static:
        flags = [f"{installed.lib}/libhiredis_shm.a" if f == "-lhiredis_shm" else f for f in flags] + ["-pthread"]
    program = tmp_path / "sync"
    installed.run(*CC, "-Wall", "-Werror", "-std=c11", "-o", program, installed.prefix / "share/doc/redis-shm/examples/sync.c", *flags)
    assert "Using shared memory from now on!" in installed.run(program, server.path)
    assert "Using shared memory from now on!" in installed.run(program, "127.0.0.1", server.port)


def test_a_cxx_program_built_with_pkg_config_runs(installed, server, tmp_path):
    program = tmp_path / "app"
    installed.run(*CXX, "-Wall", "-Wextra", "-Werror", "-std=c++17", "-o", program, HERE / "app.cc",
                  *installed.pkg_config("--cflags", "--libs", "hiredis_shm", "charfifo"))
    assert installed.run(program, server.path) == "C++ over shared memory\n"


def cmake(installed, build, *words, code=0):
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    return installed.run("cmake", "-S", HERE, "-B", build, f"-DEXAMPLES={installed.prefix}/share/doc/redis-shm/examples",
                         f"-DCMAKE_C_COMPILER={CC[0]}", f"-DCMAKE_CXX_COMPILER={CXX[0]}", *words, code=code)


def test_c_and_cxx_programs_built_with_cmake_run(installed, server, tmp_path):
    cmake(installed, tmp_path, f"-DWANTED={VERSION}")
    installed.run("cmake", "--build", tmp_path)
    assert "Using shared memory from now on!" in installed.run(tmp_path / "sync", server.path)
    assert "Using shared memory from now on!" in installed.run(tmp_path / "sync_static", server.path)
    assert installed.run(tmp_path / "app", server.path) == "C++ over shared memory\n"
    needed = subprocess.run(["readelf", "-d", tmp_path / "sync_static"], capture_output=True, text=True, check=True).stdout
    assert "libhiredis_shm" not in needed.split("RUNPATH")[0]


@pytest.mark.parametrize("wanted", ["99.0", f"{MAJOR}.999"])
def test_cmake_does_not_accept_this_version_for_another(installed, tmp_path, wanted):
    cmake(installed, tmp_path, f"-DWANTED={wanted}", code=1)


def test_cmake_says_so_when_hiredis_is_not_there(installed, tmp_path):
    (tmp_path / "empty").mkdir()
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    env = dict(installed.env, PKG_CONFIG_LIBDIR=str(tmp_path / "empty"))
    del env["PKG_CONFIG_PATH"]
    done = subprocess.run(["cmake", "-S", HERE, "-B", tmp_path / "b"], env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "needs hiredis >= 1.0" in " ".join(done.stderr.split()), done


def test_the_installed_tool_finds_the_installed_module(installed, tmp_path):
    out = tmp_path / "row.json"

    installed.run(installed.tool, "bench", "--start", "--transport", "shm", "--requests", "2000", "--rounds", "1", "--json", out)
    assert out.stat().st_size > 0


def test_every_page_of_the_manual_renders(installed):
    if shutil.which("man") is None:
        pytest.skip("man is not installed")
    pages = [p for p in (installed.prefix / "share/man").rglob("*.[1-9]")]
    assert pages
    for page in pages:
        done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page], capture_output=True, text=True,
                              env=dict(os.environ, LC_ALL="C.UTF-8", MANROFFSEQ="", MANWIDTH="80"))
        assert done.returncode == 0 and not done.stderr, (page, done.stderr)


def test_uninstall_leaves_nothing(tmp_path):
    where = [f"DESTDIR={tmp_path}/stage", "PREFIX=/usr"]
    make("install", *where)
    modules = tmp_path / "stage/usr/lib/redis/modules"
    (modules / "other.so").write_text("somebody else's")
    assert len(list((tmp_path / "stage").rglob("*"))) > 20
    make("uninstall", *where)
    left = [p for p in (tmp_path / "stage").rglob("*") if not p.is_dir()]
    assert left == [modules / "other.so"]


def test_the_source_archive_builds_and_is_the_same_twice(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    archive = ROOT / make("dist").stdout.splitlines()[-1]
    first = archive.read_bytes()
    make("dist")
    assert archive.read_bytes() == first
    subprocess.run(["tar", "-xzf", archive, "-C", tmp_path], check=True)
    tree = tmp_path / f"redis-shm-{VERSION}"
    subprocess.run(["make", "-C", tree, "all-nohiredis"], check=True, capture_output=True,
                   env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")})
    assert (tree / "build" / "module-shm.so").exists()


def test_every_function_command_and_setting_has_a_page(installed):
    pages = {p.name for p in (installed.prefix / "share/man").rglob("*.[1-9]")}
    for function in declared("hiredis_shm.h") | declared("charfifo.h"):
        assert f"{function}.3" in pages
        page = (installed.prefix / "share/man/man3" / f"{function}.3").read_text()
        assert re.search(rf'^\.BI? ".*\b{function}\(', page, re.M), function
    module = (installed.prefix / "share/man/man7/redis-shm-module.7").read_text().replace("\\-", "-")
    sources = "".join(p.read_text() for p in (ROOT / "src/module").glob("*.c"))
    for command in re.findall(r'CreateCommand\(ctx, "([a-z.]+)"', sources):
        assert re.search(rf"^\.(B|BI) \"?{command.upper()}\b", module, re.M), command
    settings = re.findall(r'^    \{"([a-z-]+)", &rshm_settings', sources, re.M) + ["wait-mode"]
    assert len(settings) == 5
    for setting in settings:
        assert re.search(rf"^\.BR {setting} ", module, re.M), setting


@pytest.mark.parametrize("change, code", [("", 0), ("s/ redisIsSharedMemoryInitialized;//", 1)], ids=["same", "a function is gone"])
def test_the_abi_check_finds_what_breaks_programs(tmp_path, change, code):
    if shutil.which("abidiff") is None or not (ROOT / ".git").exists():
        pytest.skip("no abidiff, or no git checkout")

    def run(*argv, **options):
        return subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False,
                              env={k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "GIT_"))}, **options)

    tree = subprocess.run(["git", "-C", ROOT, "archive", "HEAD"], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", tmp_path], input=tree, check=True)
    run("git", "init", "-q")
    run("git", "add", ".")
    assert run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "release").returncode == 0
    run("git", "tag", "v0.1.0")
    (tmp_path / "build").mkdir()
    if (ROOT / "build" / "deps").exists():
        (tmp_path / "build" / "deps").symlink_to(ROOT / "build" / "deps")
    if change:
        run("sed", "-i", change, "src/client/libhiredis_shm.map")
    done = run("scripts/abi-check.sh")
    assert done.returncode == code, done
    assert ("incompatible with v0.1.0" if code else "compatible with v0.1.0") in done.stderr + done.stdout
