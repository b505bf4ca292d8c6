"""The manual page, and completion in bash and zsh (real shells, asked what they would offer), against what --help says."""
import os
import re
import select
import shutil
import subprocess
import time

import pytest

from redis_server import BUILD, ROOT
from tool import TOOL, tool


def commands():
    text = subprocess.run([TOOL, "--help"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^  (\w+) ", text.split("Commands:\n")[1].split("\n\n")[0], re.M)


def options(command):
    return set(re.findall(r"(?m)^ +(?:-., )?(--[a-z0-9-]+)", tool(command, "--help").stdout))


def test_the_manual_page_has_every_command_and_every_option():
    page = (ROOT / "man" / "redis-shm.1").read_text().replace("\\-", "-")
    for command in commands():
        assert f".B redis-shm {command}\n" in page and f".SS redis-shm {command}\n" in page
        for option in options(command):
            assert re.search(rf"^\.[A-Z]+ .*{option}\b", page, re.M), f"{command} {option}"


def bash(*words, cwd=None):
    """What bash offers for the last of the words."""
    script = f"""
        PATH={BUILD}:$PATH
        . {ROOT}/completions/redis-shm.bash
        complete -p redis-shm >/dev/null || exit 3
        COMP_WORDS=(redis-shm "$@") COMP_CWORD=$#
        _redis_shm redis-shm "${{@:$#}}" "${{COMP_WORDS[$#-1]}}"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, cwd=cwd, timeout=30)
    assert done.returncode == 0 and not done.stderr, done
    return set(done.stdout.split("\n")) - {""}


def test_bash_offers_the_commands():
    assert {"demo", "latency", "doctor", "top"} <= set(commands())
    assert bash("") == set(commands()) | {"--help", "--version"}
    assert bash("lat") == {"latency"} and bash("--v") == {"--version"}


def test_bash_offers_every_option_of_every_command():
    for command in commands():
        assert bash(command, "--") >= options(command) and len(options(command)) > 3
    assert bash("latency", "--tr") == {"--transport"}
    assert bash("latency", "--json", "--hist") == {"--history"}


def test_bash_offers_the_values_of_options(tmp_path):
    assert bash("latency", "--transport", "") == {"tcp", "unix", "shm"}
    assert bash("latency", "--transport", "u") == {"unix"} and bash("latency", "--transport", "tcp,s") == {"tcp,shm"}
    assert bash("latency", "--wait", "p") == {"poll"}
    (tmp_path / "a b.sock").touch()
    (tmp_path / "dir").mkdir()
    for option in ("-s", "--socket"):
        assert bash("top", option, "", cwd=tmp_path) == {"a b.sock", "dir"}
    assert bash("demo", "--out", "", cwd=tmp_path) == {"dir"}
    assert bash("latency", "--rate", "") == set()


def test_zsh_offers_commands_options_and_values():
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    import pty
    main, side = pty.openpty()
    env = {"PATH": f"{BUILD}:{os.environ['PATH']}", "TERM": "dumb", "HOME": "/nonexistent", "ZDOTDIR": "/nonexistent", "LC_ALL": "C"}
    process = subprocess.Popen(["zsh", "-f", "-i"], stdin=side, stdout=side, stderr=side, env=env, start_new_session=True)
    os.close(side)
    seen = ""

    def typed(text, *wanted):
        nonlocal seen
        start = len(seen)
        os.write(main, text.encode())
        end = time.monotonic() + 20
        while not all(w in seen[start:] for w in wanted) and time.monotonic() < end:
            if select.select([main], [], [], 0.1)[0]:
                seen += os.read(main, 65536).decode(errors="replace")
        assert all(w in seen[start:] for w in wanted), seen[start:]

    try:
        typed(f"PS1='> '; fpath=({ROOT}/completions $fpath); autoload -U compinit; compinit -D -u; bindkey '^I' list-choices; print rea''dy\n", "ready")
        typed("redis-shm \t", *[f"{c} " for c in commands()])
        typed("\x15redis-shm latency --\t", *options("latency"))
        typed("\x15redis-shm latency --transport \t", "tcp", "unix", "shm")
        typed("\x15redis-shm top --js\t", "--json")
    finally:
        process.kill()
        process.wait()
        os.close(main)
