"""What the documents say, held against the program: their commands run, their links exist, every error message has its entry.

In a page, "<!-- run -->" before a ```sh block makes it part of the page's script, which runs from top to bottom in a directory like this tree's;
"<!-- file PATH -->" before another block writes it. Ports and /tmp are replaced, so that nothing of the machine's is touched.
"""
import os
import re
import shutil
import subprocess

import pytest

from redis_server import BUILD, ROOT, free_port

HIREDIS_LIBDIR = os.environ.get("RSHM_HIREDIS_LIBDIR") or str(ROOT / "build" / "deps" / "hiredis" / "lib")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = [p for p in PAGES if "<!-- run -->" in p.read_text()]
BLOCK = re.compile(r"(?:<!-- (run|file (\S+)) -->\n)?```(\w*)\n(.*?)```", re.S)


def script_of(page, tmp, port):
    """The page as one shell script."""
    def here(text):
        return text.replace("6379", str(port)).replace("/tmp/", f"{tmp}/")

    parts = ["set -eu -o pipefail"]
    for marker, path, language, text in BLOCK.findall(page.read_text()):
        if path:
            parts.append(f"cat >{here(path)} <<'END_OF_FILE'\n{here(text)}END_OF_FILE")
        elif marker == "run":
            parts.append(here(text))
    return "\n".join(parts)


@pytest.mark.parametrize("page", SCRIPTS, ids=lambda p: p.name)
def test_the_commands_of_the_page_work(page, tmp_path):
    port = free_port()
    tree = tmp_path / "tree"
    tree.mkdir()
    for entry in ROOT.iterdir():
        if entry.name not in ("build", ".git"):
            (tree / entry.name).symlink_to(entry)
    (tree / "build").symlink_to(BUILD)
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k not in ("LD_LIBRARY_PATH", "MFLAGS", "CC", "RSHM_BUILD")}
    env.update(PKG_CONFIG_PATH=f"{HIREDIS_LIBDIR}/pkgconfig", LD_LIBRARY_PATH=HIREDIS_LIBDIR)
    try:
        done = subprocess.run(["bash", "-x", "-c", script_of(page, tmp, port)], cwd=tree, env=env, capture_output=True, text=True, timeout=150)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "(error)" not in done.stdout and "ERR " not in re.sub(r"(?m)^ERR.*without a config file$", "", done.stdout), done.stdout
        if page.name == "quickstart.md":
            assert "PONG over shared memory" in done.stdout and "b'hello'" in done.stdout
            assert not [p for p in (tmp / "redis-shm").rglob("*") if not p.is_dir()]
    finally:
        subprocess.run(["redis-cli", "-p", str(port), "SHUTDOWN", "NOSAVE"], capture_output=True)


def test_every_shell_block_is_run():
    assert SCRIPTS
    for page in PAGES:
        for marker, _, language, text in BLOCK.findall(page.read_text()):
            assert language != "sh" or marker == "run", f"{page.name}: a block that no test runs:\n{text}"


def test_make_targets_and_paths_in_the_documents_exist():
    database = subprocess.run(["make", "-pnq", "-C", ROOT], capture_output=True, text=True).stdout
    targets = set(re.findall(r"^([a-z][\w-]*):", database, re.M))
    for page in PAGES:
        text = page.read_text()
        for words in re.findall(r"(?:^    |`)make ((?:[A-Z_]+=\S+ )*)([a-z][a-z-]+)", text, re.M):
            assert words[1] in targets, f"{page.name}: make {words[1]}"
        for path in re.findall(r"`((?:src|include|tests|scripts|examples|docs|man|packaging|completions)/[\w./-]+)`", text):
            assert (ROOT / path).exists(), f"{page.name}: {path}"
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_subcommands_and_options_in_the_documents_exist():
    helps = {}
    for page in PAGES:
        for command, rest in re.findall(r"(?:build/)?redis-shm ([a-z]+)((?: +--?[\w-]+(?: [\w./:]+)?)*)", page.read_text()):
            if command not in helps:
                done = subprocess.run([BUILD / "redis-shm", command, "--help"], capture_output=True, text=True)
                helps[command] = done.stdout if done.returncode == 0 else None
            if helps[command] is None:
                continue  # prose, such as "redis-shm shows"
            for option in re.findall(r"(?<= )--[\w-]+", rest):
                assert option in helps[command], f"{page.name}: redis-shm {command} {option}"


# ---- error messages ----

STRING = r'"((?:[^"\\]|\\.)*)"'


def literals(text):
    """C strings in text, neighbours joined."""
    return ["".join(re.findall(STRING, m.group(0))) for m in re.finditer(rf"(?:{STRING}\s*)+", text)]


def calls(text, *names):
    """The argument lists of calls of these functions, up to the semicolon."""
    return [m.group(1) for m in re.finditer(rf"\b(?:{'|'.join(names)})\(((?:[^;\"]|{STRING})*);", text)]


# Messages of wrong usage: one line of the page says what they are.
ABOUT_OPTIONS = re.compile(r"must (be|not be)|takes at most|can be given|--help' lists")


def messages():
    """Format strings that a user can meet, with where."""
    found = {}
    fragments = {"a power of two", "a whole number", "warning", "notice"}
    for path in sorted((ROOT / "src/tools").glob("*.c")):
        text = re.sub(r"(?s)/\*.*?\*/", "", path.read_text())
        for place in calls(text, "rshm_complain", "fail"):
            for message in literals(place)[:1]:
                if len(re.findall("[a-z]", plain(message))) >= 7 and not ABOUT_OPTIONS.search(message):
                    found[message] = path.name
    for path in sorted([*(ROOT / "src/module").glob("*.c"), *(ROOT / "src/client").glob("*.c"), *(ROOT / "src/redirect").glob("*.c")]):
        text = re.sub(r"(?s)/\*.*?\*/", "", path.read_text())
        text = text.replace('" RSHM_VERSION "', "%s")
        places = calls(text, "refuse", "refuse_in_turn", "redis.Log", "give_up", "rshm_client_error", "rshm_session_break", "explain")
        places += [m.group(1) for m in re.finditer(rf"(?:\bwhy = [^;\"]*|\breturn )((?:{STRING}\s*)+)", text)]
        places += [a for a in calls(text, "snprintf") if a.startswith("why,")]
        for place in places:
            for message in literals(place):
                if len(re.findall("[a-z]", plain(message))) >= 7 and message not in fragments:
                    found[message] = path.name
    return found


def plain(text):
    """Without the parts that vary: conversions, and in the page <what is there instead>."""
    text = re.sub(r"%[-0-9.*]*(?:ll|z|l)?[a-z]", "<>", text.replace("%%", "%"))
    text = text.split("; the connection goes on over its socket")[0]
    text = re.sub(r"(<[^<>]*>)+", "<>", text)
    return re.sub(r"\s+", " ", re.sub(r"^(-?ERR )?(SHM\.OPEN: |shm: (not loaded: )?)", "", text)).strip().replace("\\r\\n", "")


def entries():
    """The first cell of each row of the tables in troubleshooting.md."""
    rows = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/troubleshooting.md").read_text(), re.M)
    return {plain(row) for row in rows}


def test_every_error_message_has_its_entry():
    there, wanted = entries(), messages()
    assert len(wanted) > 100
    missing = {m: where for m, where in wanted.items() if plain(m) not in there and plain(m) not in ("", "<>")}
    assert not missing, missing


def test_every_entry_is_a_message():
    of_others = ("ERR unknown command", "NOPERM", "unknown command", "It does not have execute permissions", "Resource temporarily unavailable")
    stale = {e for e in entries() - {plain(m) for m in messages()} if not e.startswith(of_others)}
    assert not stale, stale


def test_settings_and_defaults_in_the_documents_are_the_servers(start_server):
    if shutil.which("redis-cli") is None:
        pytest.skip("redis-cli is not installed")
    server = start_server()
    try:
        there = {k[4:]: v for k, v in server.client(decode_responses=True).config_get("shm.*").items()}
    except Exception as e:
        pytest.skip(str(e))
    if not there:
        pytest.skip("this server has no module configuration")
    unit = {"kb": 1024, "mb": 1024**2, "gb": 1024**3}
    for page in ("README.md", "docs/configuration.md"):
        rows = dict(re.findall(r"^\| `([a-z-]+)` \| (\w+) \|", (ROOT / page).read_text(), re.M))
        assert rows.keys() == there.keys(), page
        for name, value in rows.items():
            number = re.fullmatch(r"(\d+)(kb|mb|gb)?", value)
            assert there[name] == (str(int(number[1]) * unit.get(number[2], 1)) if number else value), (page, name)


def test_a_message_without_an_entry_would_be_found(monkeypatch):
    there = entries()
    monkeypatch.setitem(globals(), "entries", lambda: there - {plain("this connection is older than the module; reconnect")})
    with pytest.raises(AssertionError):
        test_every_error_message_has_its_entry()
    monkeypatch.setitem(globals(), "entries", lambda: there | {"a message that nobody writes"})
    with pytest.raises(AssertionError):
        test_every_entry_is_a_message()
