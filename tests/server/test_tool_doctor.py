"""redis-shm doctor: exit 0 exactly when shared memory works, and for each thing that is wrong the line that says so."""
import os
import signal
import subprocess

import pytest

from redis_server import HAS_MODULE_CONFIGURATION, eventually, free_port
from test_namespaces import inside, namespace  # noqa: F401: a fixture
from tool import Terminal, finish, started, tool, tool_json

needs_configuration = pytest.mark.skipif(not HAS_MODULE_CONFIGURATION, reason="this server has no module configuration")


def findings(result, check=None, level=None):
    return [f for f in result["findings"] if check in (None, f["check"]) and level in (None, f["level"])]


def the(result, check, level):
    found = findings(result, check, level)
    assert len(found) == 1, result
    return found[0]


def complete(result):
    """Every line that is not fine says what to do."""
    return all((f["todo"] == "") == (f["level"] == "ok") and f["what"] for f in result["findings"])


@pytest.mark.parametrize("options", [[], ["-3"]], ids=["resp2", "resp3"])
@pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])
def test_where_all_is_well_it_says_so_and_exits_0(server, unix, options):
    opened = server.stats()["sessions_opened"]
    result = tool_json("doctor", *options, server=server, unix=unix)
    assert result["works"] is True and not findings(result, level="PROBLEM") and complete(result)
    assert {"client", "server", "host", "module", "cpus", "load", "trial"} <= {f["check"] for f in result["findings"]}
    assert "is loaded" in the(result, "module", "ok")["what"] and str(server.pid) in the(result, "host", "ok")["what"]
    assert "shared memory works" in findings(result, "trial")[0]["what"]
    assert ("Unix socket" if unix else "TCP") in findings(result, "trial")[0]["what"]
    assert server.stats()["sessions_opened"] == opened + 1
    assert eventually(lambda: server.stats()["sessions"] == 0)


def test_as_text_each_finding_is_a_line(server):
    done = tool("doctor", server=server)
    assert done.returncode == 0 and not done.stderr and "\033" not in done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) >= 7 and all(line.split()[0] in ("ok", "note") for line in lines)
    assert all(" - " in line for line in lines if line.startswith("note"))


def test_on_a_terminal_the_levels_have_colours(server):
    with Terminal("doctor", server=server) as t:
        assert t.finish() == 0 and "\033[32mok" in t.text
    with Terminal("doctor", server=server, env={"NO_COLOR": "1"}) as t:
        assert t.finish() == 0 and "\033[32m" not in t.text and "ok " in t.text


def test_no_server():
    result = tool_json("doctor", "-p", free_port(), code=1)
    assert result["works"] is False and "refused" in the(result, "server", "PROBLEM")["what"] and complete(result)
    assert findings(result, "cpus")  # what can be looked at without one


def test_no_module(start_server):
    server = start_server(module=False, args=["--enable-module-command", "no"] if HAS_MODULE_CONFIGURATION else [])
    result = tool_json("doctor", server=server, code=1)
    problem = the(result, "module", "PROBLEM")
    assert "loadmodule" in problem["todo"] and complete(result)
    if HAS_MODULE_CONFIGURATION:
        assert "switched off" in problem["todo"]
    assert the(result, "trial", "PROBLEM")


def test_wrong_password_and_no_permission(start_server):
    server = start_server()
    assert "wrong password" in the(tool_json("doctor", "--user", "x", "-a", "y", server=server, code=1), "server", "PROBLEM")["what"]
    server.client().execute_command("ACL", "SETUSER", "meter", "on", ">secret", "+@all", "-shm.open")
    result = tool_json("doctor", "--user", "meter", "-a", "secret", server=server, code=1)
    assert "+shm.open" in the(result, "trial", "PROBLEM")["what"]
    server.client().execute_command("ACL", "SETUSER", "poor", "on", ">secret", "-@all", "+shm.open", "+ping")
    result = tool_json("doctor", "--user", "poor", "-a", "secret", server=server)
    assert result["works"] and the(result, "module", "note") and complete(result)


@needs_configuration
def test_limits(start_server, shm):
    server = start_server(module_args=["max-sessions", "5"])
    sessions = [shm(server)]
    assert "1 of 5" in findings(tool_json("doctor", server=server), "limits", "ok")[0]["what"]
    sessions += [shm(server) for _ in range(4)]
    result = tool_json("doctor", server=server, code=1)
    assert "shm.max-sessions" in the(result, "limits", "PROBLEM")["what"] and "max-sessions" in the(result, "trial", "PROBLEM")["what"]
    server.client().execute_command("CONFIG", "SET", "shm.max-sessions", "6")
    result = tool_json("doctor", server=server)
    assert "5 of 6" in the(result, "limits", "note")["what"]
    assert "shm.max-sessions" in the(result, "refused", "note")["what"]  # the trial before
    server.client().execute_command("CONFIG", "SET", "shm.max-sessions", "100", "shm.max-memory", "800000")
    assert "shm.max-memory" in the(tool_json("doctor", server=server, code=1), "limits", "PROBLEM")["what"]


def test_clients_that_were_refused_are_told_of(start_server, plain):
    server = start_server(module=False, args=["--enable-module-command", "yes"] if HAS_MODULE_CONFIGURATION else [])
    old = plain(server)
    old.command("PING")
    from redis_server import MODULE
    server.client().execute_command("MODULE", "LOAD", str(MODULE))
    assert "older than the module" in old.use_shared_memory()
    note = the(tool_json("doctor", server=server), "refused", "note")
    assert "before the module was loaded" in note["what"] and "reconnect" in note["todo"]


@needs_configuration
@pytest.mark.parametrize("mode, level", [("adaptive", "ok"), ("poll", "note"), ("block", "note")])
def test_the_wait_mode_is_explained(start_server, mode, level):
    server = start_server(module_args=["wait-mode", mode])
    assert f"shm.wait-mode {mode}" in the(tool_json("doctor", server=server), "waiting", level)["what"]


def test_one_cpu_for_both(start_server):
    cpu = str(min(os.sched_getaffinity(0)))
    server = start_server(prefix=["taskset", "-c", cpu])
    result = tool_json("doctor", server=server, prefix=["taskset", "-c", cpu])
    note = the(result, "cpus", "note")
    assert "one CPU between them" in note["what"] and result["works"]
    if len(os.sched_getaffinity(0)) > 1:
        assert "may only use one CPU" in the(tool_json("doctor", server=server), "cpus", "note")["what"]


def test_another_host():
    result = tool_json("doctor", "-h", "127.0.0.1", "-p", free_port(), code=1)
    assert not result["works"]


def test_from_another_network_namespace_tcp_fails_and_the_unix_socket_works(start_server, namespace):  # noqa: F811
    name, address = namespace
    server = start_server(args=["--bind", "127.0.0.1", address, "--protected-mode", "no"])
    result = tool_json("doctor", "-h", address, "-p", server.port, code=1, prefix=inside(name))
    assert "Unix socket" in the(result, "host", "PROBLEM")["todo"] and the(result, "trial", "PROBLEM")
    result = tool_json("doctor", server=server, prefix=inside(name))
    assert result["works"] and "another network namespace" in the(result, "host", "ok")["what"]


def test_tls_is_told_of(start_server, tmp_path):
    key, cert = tmp_path / "key", tmp_path / "cert"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test", "-keyout", key, "-out", cert],
                   check=True, capture_output=True)
    try:
        server = start_server(args=["--tls-port", free_port(), "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert])
    except RuntimeError as e:
        pytest.skip(f"this server has no TLS: {str(e)[-200:]}")
    result = tool_json("doctor", server=server)
    assert result["works"] and "TLS port" in the(result, "tls", "note")["what"]
    tls_port = server.client().config_get("tls-port")["tls-port"]
    done = tool("doctor", "-p", tls_port)
    assert done.returncode == 1 and "TLS" in done.stdout


@pytest.mark.parametrize("args", [["--nonsense"], ["extra"], ["-p", "x"]], ids=" ".join)
def test_wrong_usage_exits_2_and_says_what_is_wrong(args):
    done = tool("doctor", *args)
    assert done.returncode == 2 and not done.stdout and done.stderr.startswith("redis-shm") and len(done.stderr.splitlines()) <= 2


def test_help_has_examples():
    done = tool("doctor", "--help")
    assert done.returncode == 0 and "Examples:" in done.stdout and "--json" in done.stdout


def test_a_signal_ends_it(start_server):
    server = start_server()
    server.process.send_signal(signal.SIGSTOP)
    try:
        process = started("doctor", server=server)
        assert eventually(lambda: "socket:" in str([os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{process.pid}/fd")]))
        done = finish(process, signal.SIGINT)
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert done.returncode == -signal.SIGINT


def test_a_full_output_is_an_error(server):
    with open("/dev/full", "w") as full:
        done = tool("doctor", server=server, stdout=full)
    assert done.returncode == 1 and "No space left" in done.stderr
