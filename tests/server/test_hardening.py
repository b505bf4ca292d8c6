"""What is installed is compiled and linked as distributions harden their own."""
import subprocess

import pytest

from redis_server import BUILD

MADE = ["module-shm.so", "libhiredis_shm.so", "redis-shm"]


def readelf(name, *options):
    return subprocess.run(["readelf", "-W", *options, BUILD / name], capture_output=True, text=True, check=True).stdout


@pytest.fixture(autouse=True, scope="module")
def plain_build():
    if "__asan_init" in readelf("module-shm.so", "--dyn-syms") or "__tsan_init" in readelf("module-shm.so", "--dyn-syms"):
        pytest.skip("a sanitizer's build")


@pytest.mark.parametrize("name", MADE)
def test_relocations_are_resolved_at_the_start_and_then_read_only(name):
    assert "GNU_RELRO" in readelf(name, "-l")
    assert "NOW" in readelf(name, "-d")


@pytest.mark.parametrize("name", MADE)
def test_no_segment_is_writable_and_executable_and_no_text_relocation_is_needed(name):
    flags = [line.split()[-2] if line.split()[-2].isalpha() else line.split()[-3] for line in readelf(name, "-l").splitlines()
             if line.strip().startswith(("LOAD", "GNU_STACK"))]
    assert flags and not any("W" in f and "E" in f for f in flags)
    stack = next(line for line in readelf(name, "-l").splitlines() if "GNU_STACK" in line)
    assert "RWE" not in stack
    assert "TEXTREL" not in readelf(name, "-d")


@pytest.mark.parametrize("name", MADE)
def test_it_is_position_independent(name):
    assert "DYN (" in readelf(name, "-h")


@pytest.mark.parametrize("name", MADE)
def test_the_stack_is_protected_and_the_c_library_checks_sizes(name):
    symbols = readelf(name, "--dyn-syms")
    assert "__stack_chk_fail" in symbols
    assert any(f"__{f}_chk" in symbols for f in ("snprintf", "vsnprintf", "memcpy", "printf", "fprintf", "recv", "read"))
