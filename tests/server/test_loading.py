"""Ways to load the module, its settings, and what an unload leaves behind."""
import os
import pathlib
import subprocess

import pytest
import redis

from elf_slots import Program
from redis_server import HAS_MODULE_CONFIGURATION, MODULE, MODULE_COMMAND, Server, eventually
from shm_client import ErrorReply
from wire import Wire

DEFAULTS = {"ring-size": "65536", "max-sessions": "1024", "max-memory": str(256 << 20), "wait-mode": "adaptive", "spin-limit-us": "10"}
OTHERS = {"ring-size": "8192", "max-sessions": "7", "max-memory": str(9 << 20), "wait-mode": "block", "spin-limit-us": "3"}
CONFIGURATION = pytest.mark.skipif(not HAS_MODULE_CONFIGURATION, reason="this server has no module configuration")
REDIRECTED = ("read", "write", "close", "epoll_ctl", "epoll_wait")


def settings(server):
    r = server.client()
    return {k: v.decode() if isinstance(v, bytes) else v
            for k, v in ((name, r.execute_command("CONFIG", "GET", "shm." + name)) for name in DEFAULTS)
            for v in [v[1] if isinstance(v, list) else list(v.values())[0]]}


def error_of(call, *args):
    with pytest.raises(redis.ResponseError) as e:
        call(*args)
    return str(e.value)


def module_names(server):
    names = [row[b"name"] if isinstance(row, dict) else row[1] for row in server.client().execute_command("MODULE", "LIST")]
    return [n for n in names if n != b"vectorset"]  # Redis 8 brings it along


@pytest.fixture
def empty_server(start_server):
    """A server that may load modules at run time, and has not."""
    return start_server(module=False, args=MODULE_COMMAND)


def test_loadmodule_on_the_command_line_loads_it(server, shm):
    assert module_names(server) == [b"shm"]
    assert shm(server).command("PING") == b"PONG"


def test_loadmodule_in_redis_conf_takes_arguments(start_server, shm):
    server = start_server(module=False, config=f"loadmodule {MODULE} ring-size 8kb max-sessions 7 WAIT-MODE Block spin-limit-us 3 max-memory 9mb")
    if HAS_MODULE_CONFIGURATION:
        assert settings(server) == OTHERS
    c = shm(server)
    assert c.command("ECHO", "x" * 20000) == b"x" * 20000
    assert server.stats()["memory_bytes"] == 4096 + 2 * (8192 + 4096)  # docs/protocol.md, "The segment"


@CONFIGURATION
def test_settings_come_from_shm_lines_in_redis_conf(start_server, shm):
    lines = "\n".join(f"shm.{name} {value}" for name, value in OTHERS.items())
    server = start_server(module=False, config=f"loadmodule {MODULE}\n{lines}")
    assert settings(server) == OTHERS
    assert shm(server).command("PING") == b"PONG"


@CONFIGURATION
@pytest.mark.skipif("RSHM_MODULE_ARGS" in os.environ, reason="RSHM_MODULE_ARGS sets others")
def test_settings_have_the_documented_defaults(server):
    assert settings(server) == DEFAULTS


def test_module_load_at_run_time_serves_new_connections_and_refuses_old_ones(empty_server, plain):
    clients = [plain(empty_server, unix=unix) for unix in (True, False)]
    assert all("unknown command" in c.use_shared_memory() for c in clients)
    assert empty_server.client().execute_command("MODULE", "LOAD", str(MODULE), "max-sessions", "7") == b"OK"
    for c in clients:
        reply = c.use_shared_memory()
        assert isinstance(reply, ErrorReply) and "reconnect" in reply
        assert c.command("SET", "k", "v") == b"OK" and c.command("GET", "k") == b"v"
        c.reconnect()
        assert c.use_shared_memory() == 1 and c.command("GET", "k") == b"v" and c.is_shm()
    assert empty_server.stats()["refused_older_than_module"] == 2


@CONFIGURATION
def test_module_loadex_takes_configuration_and_arguments(empty_server, shm):
    empty_server.client().execute_command("MODULE", "LOADEX", str(MODULE), "CONFIG", "shm.max-sessions", "7", "CONFIG", "shm.wait-mode",
                                          "block", "ARGS", "ring-size", "8192")
    got = settings(empty_server)
    assert (got["max-sessions"], got["wait-mode"], got["ring-size"]) == ("7", "block", "8192")
    assert shm(empty_server).command("PING") == b"PONG"


@CONFIGURATION
@pytest.mark.parametrize("name, value, shown", [("ring-size", "1mb", "1048576"), ("ring-size", "4096", "4096"), ("ring-size", "1gb", str(1 << 30)),
                                                ("max-sessions", "0", "0"), ("max-sessions", "65536", "65536"), ("max-memory", "10mb", str(10 << 20)),
                                                ("wait-mode", "poll", "poll"), ("wait-mode", "block", "block"), ("spin-limit-us", "0", "0"),
                                                ("spin-limit-us", "1000000", "1000000")])
def test_config_set_changes_a_setting_at_run_time(server, shm, name, value, shown):
    r, before = server.client(), settings(server)
    try:
        assert r.config_set("shm." + name, value)
        assert settings(server)[name] == shown
        if value not in ("0", "1gb"):
            assert shm(server).command("ECHO", "x" * 5000) == b"x" * 5000
    finally:
        r.config_set("shm." + name, before[name])


BAD = [("ring-size", "4095"), ("ring-size", "65535"), ("ring-size", "2gb"), ("ring-size", "0"), ("ring-size", "-65536"), ("ring-size", "large"),
       ("ring-size", "64kbb"), ("ring-size", "99999999999999999999"), ("max-sessions", "-1"), ("max-sessions", "65537"), ("max-sessions", "7kb"),
       ("max-memory", "-1"), ("max-memory", "9999999gb"), ("wait-mode", "fast"), ("wait-mode", ""), ("spin-limit-us", "-1"),
       ("spin-limit-us", "1000001"), ("spin-limit-us", "1.5")]


@CONFIGURATION
@pytest.mark.parametrize("name, value", [b for b in BAD if b[1] != ""])
def test_config_set_of_a_bad_value_is_refused_and_changes_nothing(server, name, value):
    before = settings(server)
    message = error_of(server.client().config_set, "shm." + name, value)
    assert name in message
    assert settings(server) == before


@pytest.mark.parametrize("arguments, named", [([n, v], n) for n, v in BAD] +
                         [(["colour", "red"], "colour"), (["max-sessions"], "max-sessions"), (["ring-size", "8kb", "max-sessions"], "max-sessions"),
                          (["shm.ring-size", "8kb"], "shm.ring-size"), (["", ""], "unknown setting")], ids=lambda v: "-".join(v) if isinstance(v, list) else "")
def test_a_bad_argument_stops_module_load_and_the_log_names_it(empty_server_of_module, arguments, named):
    server = empty_server_of_module
    mark = len(server.log())
    error_of(server.client().execute_command, "MODULE", "LOAD", str(MODULE), *arguments)
    said = server.log()[mark:]
    assert "shm: not loaded" in said and named in said
    assert module_names(server) == [] and server.client().ping()
    assert "unknown command" in error_of(server.client().execute_command, "SHM.STATS")


@pytest.fixture(scope="module")
def _empty_module_server():
    s = Server(module=False, args=MODULE_COMMAND)
    yield s
    assert not s.stop()


@pytest.fixture
def empty_server_of_module(_empty_module_server):
    return _empty_module_server


@pytest.mark.parametrize("arguments, named", [("ring-size 5000", "ring-size"), ("colour red", "colour"), ("wait-mode", "wait-mode")])
def test_a_bad_argument_in_redis_conf_stops_the_server_and_the_log_names_it(start_server, arguments, named):
    server = start_server(module=False, config=f"loadmodule {MODULE} {arguments}", wait=False)
    assert server.wait_exit() != 0
    assert "shm: not loaded" in server.log() and named in server.log()


@CONFIGURATION
@pytest.mark.parametrize("line, named", [("ring-size 5000", "ring-size"), ("max-sessions -1", "max-sessions"), ("wait-mode fast", "wait-mode"),
                                         ("colour red", "Module Configuration detected")])  # the server's own words, and no name
def test_a_bad_shm_line_in_redis_conf_stops_the_server(start_server, line, named):
    server = start_server(module=False, config=f"loadmodule {MODULE}\nshm.{line}", wait=False)
    assert server.wait_exit() != 0
    assert named in server.log()


@CONFIGURATION
def test_config_rewrite_keeps_the_module_and_its_settings(start_server, shm):
    first = start_server(module=False, config=f"loadmodule {MODULE} max-sessions 5")
    r = first.client()
    for name, value in OTHERS.items():
        r.config_set("shm." + name, value)
    r.config_rewrite()
    text = first.conf_path.read_text()
    assert f"loadmodule {MODULE} max-sessions 5" in text and "shm.wait-mode block" in text
    kept = [line for line in text.splitlines() if line.startswith(("loadmodule", "shm."))]
    second = start_server(module=False, config="\n".join(kept))
    assert settings(second) == OTHERS
    assert shm(second).command("PING") == b"PONG"


@CONFIGURATION
def test_a_new_ring_size_is_for_new_sessions(start_server):
    server = start_server()
    with Wire(server) as old, Wire(server) as new:
        assert old.open_session().ring_bytes == 65536
        server.client().config_set("shm.ring-size", "4096")
        assert new.open_session().ring_bytes == 4096
        for w in (old, new):
            assert w.session.command("ECHO", "x" * 20000) == b"x" * 20000


@pytest.mark.parametrize("mode", ["adaptive", "poll", "block"])
def test_every_wait_mode_serves_shared_memory_and_sockets(start_server, shm, plain, mode):
    server = start_server(module_args=["wait-mode", mode])
    c, p = shm(server), plain(server)
    for i in range(200):
        assert c.command("SET", "k", str(i)) == b"OK"
        assert p.command("GET", "k") == str(i).encode()


# ---- unload ----


def test_an_unload_is_refused_while_a_session_is_open(start_server, plain):
    server = start_server(args=MODULE_COMMAND)
    c = plain(server)
    assert c.use_shared_memory() == 1
    error_of(server.client().execute_command, "MODULE", "UNLOAD", "shm")
    assert "1 sessions are open" in server.log() and "CLIENT KILL" in server.log()
    assert c.command("PING") == b"PONG" and c.is_shm()
    reply = c.command("MODULE", "UNLOAD", "shm")
    assert isinstance(reply, ErrorReply) and c.command("PING") == b"PONG"
    c.free()
    assert eventually(lambda: server.stats()["sessions"] == 0)
    assert server.client().execute_command("MODULE", "UNLOAD", "shm") == b"OK"
    assert module_names(server) == []


def test_an_unload_puts_every_slot_and_page_protection_back(empty_server, shm):
    server = empty_server
    program = Program(server.pid)
    assert all(program.slots.get(name) for name in REDIRECTED)
    values, permissions = program.values(), program.permissions()
    r = server.client()
    for _ in range(3):
        r.execute_command("MODULE", "LOAD", str(MODULE))
        loaded = program.values()
        assert all(loaded[name] != values[name] for name in REDIRECTED)
        assert program.permissions() == permissions
        c = shm(server)
        assert c.command("SET", "k", "v") == b"OK" and c.command("GET", "k") == b"v"
        c.free()
        assert eventually(lambda: server.stats()["sessions"] == 0)
        assert r.execute_command("MODULE", "UNLOAD", "shm") == b"OK"
        assert program.values() == values
        assert program.permissions() == permissions
        assert r.ping()


def test_a_load_that_fails_leaves_every_slot_as_it_was(empty_server):
    program = Program(empty_server.pid)
    values, permissions = program.values(), program.permissions()
    error_of(empty_server.client().execute_command, "MODULE", "LOAD", str(MODULE), "ring-size", "1")
    assert program.values() == values and program.permissions() == permissions
    empty_server.client().execute_command("MODULE", "LOAD", str(MODULE))
    error_of(empty_server.client().execute_command, "MODULE", "LOAD", str(MODULE))
    assert module_names(empty_server) == [b"shm"]
    assert empty_server.stats()["sessions"] == 0
    assert all(program.values()[name] != values[name] for name in REDIRECTED)


def test_a_second_load_of_the_loaded_module_changes_nothing(start_server, shm):
    server = start_server(args=MODULE_COMMAND, module_args=["max-sessions", "5"])
    c = shm(server)
    error_of(server.client().execute_command, "MODULE", "LOAD", str(MODULE), "max-sessions", "9", "ring-size", "4096")
    assert c.command("PING") == b"PONG"
    if HAS_MODULE_CONFIGURATION:
        assert settings(server)["max-sessions"] == "5" and settings(server)["ring-size"] == "65536"
    assert shm(server).command("PING") == b"PONG"


def test_after_unload_and_load_old_connections_are_refused_and_new_ones_served(start_server, plain, shm):
    server = start_server(args=MODULE_COMMAND)
    r = server.client()
    before = plain(server)
    assert before.command("PING") == b"PONG"
    r.execute_command("MODULE", "UNLOAD", "shm")
    between = plain(server)
    assert between.command("PING") == b"PONG"
    r.execute_command("MODULE", "LOAD", str(MODULE))
    for c in (before, between):
        reply = c.use_shared_memory()
        assert isinstance(reply, ErrorReply) and "reconnect" in reply
        assert c.command("PING") == b"PONG"
    assert shm(server).command("PING") == b"PONG"


def test_the_module_is_linked_to_stay_in_memory_after_an_unload():
    flags = subprocess.run(["readelf", "-d", str(MODULE)], capture_output=True, text=True, check=True).stdout
    assert "NODELETE" in flags and "NOW" in flags


def test_the_module_exports_only_what_a_server_looks_up():
    out = subprocess.run(["nm", "-D", "--defined-only", str(MODULE)], capture_output=True, text=True, check=True).stdout
    assert {line.split()[-1] for line in out.splitlines()} == {"RedisModule_OnLoad", "RedisModule_OnUnload"}


def test_nothing_of_the_module_is_visible_on_the_file_system(server, shm):
    shm(server)
    assert not [p for p in pathlib.Path("/dev/shm").iterdir() if "shm" in p.name.lower() and "redis" in p.name.lower()]
