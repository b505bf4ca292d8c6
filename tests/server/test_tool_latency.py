"""redis-shm latency: it measures what it says, over the transport it says, and ends as it should."""
import json
import re
import signal
import threading
import time

import pytest

from redis_server import eventually, free_port
from tool import Terminal, fails, finish, started, tool, tool_json

LINE = re.compile(r"min ([\d.]+), avg ([\d.]+), p50 ([\d.]+), p99 ([\d.]+), max ([\d.]+) us \((\d+) samples\)")
PERCENTILES = ["p50_us", "p90_us", "p99_us", "p99_9_us", "p99_99_us"]


def moved(server, run):
    """What `run` does to SHM.STATS."""
    before = server.stats()
    result = run()
    after = server.stats()
    return result, {k: after[k] - before[k] for k in ("sessions_opened", "messages_in", "messages_out")}


@pytest.mark.parametrize("unix", [True, False], ids=["by-path", "by-port"])
@pytest.mark.parametrize("transport", ["tcp", "unix", "shm"])
@pytest.mark.parametrize("rate", [0, 2000])
def test_it_measures_over_the_transport_it_says(server, transport, unix, rate):
    result, m = moved(server, lambda: tool_json("latency", "--transport", transport, "--count", 200, "--rate", rate, server=server, unix=unix))
    assert result["transport"] == transport and result["samples"] == 200
    assert result["server"] == (f"127.0.0.1:{server.port}" if transport == "tcp" or (transport == "shm" and not unix) else server.path)
    figures = [result["min_us"]] + [result[p] for p in PERCENTILES] + [result["max_us"]]
    assert figures == sorted(figures) and figures[0] > 0.1
    assert result["min_us"] <= result["avg_us"] <= result["max_us"]
    sent = 200 if transport == "shm" else 0
    assert m == {"sessions_opened": int(transport == "shm"), "messages_in": sent, "messages_out": sent}


def test_shared_memory_is_the_default(server):
    _, m = moved(server, lambda: tool_json("latency", "--count", 10, server=server))
    assert m["sessions_opened"] == 1


def test_every_request_is_a_ping(start_server):
    server = start_server()
    before = server.client().info("commandstats").get("cmdstat_ping", {}).get("calls", 0)
    tool_json("latency", "--count", 123, "--rate", 0, server=server)
    assert server.client().info("commandstats")["cmdstat_ping"]["calls"] - before == 123 + 1  # one more while it connects


def test_a_pause_of_the_server_shows_in_the_maximum_and_not_in_the_median(server):
    process = started("latency", "--rate", 50, "--seconds", 3, "--json", server=server)
    assert eventually(lambda: server.stats()["sessions"] == 1)
    time.sleep(0.5)
    server.client().execute_command("CLIENT", "PAUSE", 500)
    result = json.loads(finish(process).stdout)
    assert result["max_us"] > 400000 > result["p50_us"]


@pytest.mark.parametrize("options", [["-3"], ["-n", "7"], ["--wait", "poll"], ["--wait", "block"]], ids=" ".join)
def test_connections_of_every_kind_work(server, options):
    assert tool_json("latency", "--count", 20, "--rate", 0, *options, server=server)["samples"] == 20


def test_without_a_terminal_it_ends_by_itself_with_a_table(server):
    done = tool("latency", "--interval", 0.2, "--rate", 0, server=server)
    assert done.returncode == 0 and not done.stderr and "\033" not in done.stdout and "\r" not in done.stdout
    head, names, row = done.stdout.splitlines()
    assert "shared memory" in head and server.path in head and "back to back" in head
    assert names.split() == ["samples", "min", "avg", "p50", "p90", "p99", "p99.9", "p99.99", "max"]
    assert row.startswith("shm ") and len(row.split()) == 10 and len(row) <= 80


def test_history_prints_a_line_for_every_interval_and_a_table_of_all(server):
    done = tool("latency", "--history", "--interval", 0.2, "--seconds", 1.1, "--rate", 200, server=server)
    lines = done.stdout.splitlines()
    intervals = [LINE.match(line) for line in lines if line.startswith("min ")]
    assert done.returncode == 0 and all(intervals) and 2 <= len(intervals) <= 6
    assert all(re.search(r" -- [\d.]+ seconds$", line) for line in lines if line.startswith("min "))
    assert sum(int(m.group(6)) for m in intervals) == int(lines[-1].split()[1])
    assert all(float(m.group(1)) <= float(m.group(3)) <= float(m.group(4)) <= float(m.group(5)) for m in intervals)


def test_history_as_json_is_one_object_for_every_interval(server):
    done = tool("latency", "--history", "--interval", 0.2, "--count", 100, "--rate", 200, "--json", server=server)
    decoder, text, objects = json.JSONDecoder(), done.stdout, []
    while text.strip():
        value, end = decoder.raw_decode(text)
        objects.append(value)
        text = text[end:].lstrip()
    assert sum(o["samples"] for o in objects) == 100 and len(objects) >= 2
    assert [o["from_s"] for o in objects] == sorted(o["from_s"] for o in objects)


def test_dist_prints_rows_of_a_spectrum_in_plain_characters(server):
    done = tool("latency", "--dist", "--interval", 0.2, "--seconds", 0.7, "--rate", 500, server=server)
    assert done.returncode == 0 and "\033" not in done.stdout
    rows = [line for line in done.stdout.splitlines() if re.fullmatch(r"[ .:\-+*#@]{70} +[\d.]+", line)]
    assert rows and all(set(row[:70]) != {" "} for row in rows)
    assert "|10us" in done.stdout.splitlines()[0]


def test_a_rate_is_not_exceeded(server):
    assert tool_json("latency", "--rate", 20, "--seconds", 1, server=server)["samples"] <= 21


def test_intrinsic_stands_beside_the_result(server):
    result = tool_json("latency", "--intrinsic", 0.3, "--count", 10, server=server)
    own = result["intrinsic"]
    assert own["seconds"] >= 0.3 and 0 <= own["away_percent"] <= 100 and own["threshold_us"] >= 1
    assert own["samples"] == 0 or own["min_us"] >= own["threshold_us"]
    done = tool("latency", "--intrinsic", 0.1, "--count", 10, server=server)
    assert [line for line in done.stdout.splitlines() if line.startswith("machine ")]


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_still_shows_the_table_and_dies_of_the_signal(server, sig):
    process = started("latency", "--history", "--rate", 1000, server=server)
    assert eventually(lambda: server.stats()["sessions"] == 1)
    time.sleep(0.2)
    done = finish(process, sig)
    assert done.returncode == -sig and done.stdout.splitlines()[-1].startswith("shm ")


def test_on_a_terminal_a_line_changes_until_ctrl_c(server):
    with Terminal("latency", "--rate", 1000, server=server) as t:
        t.wait_text("samples)")
        t.wait_text("\r\033[Kmin ", after=len(t.text))
        t.press("\x03")
        assert t.finish() == -signal.SIGINT
        assert "\r\n" in t.text and "p99.99" in t.text


def test_the_changing_line_fits_into_a_narrow_window(server):
    with Terminal("latency", "--rate", 1000, "--seconds", 0.5, server=server, columns=40) as t:
        assert t.finish() == 0
        live = [line for line in re.split(r"\r\033\[K|\r\n", t.text) if line.startswith("min ")]
        assert len(live) > 1 and max(map(len, live)) < 40


@pytest.mark.parametrize("env, coloured", [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)], ids=["colours", "no-color", "dumb"])
def test_the_spectrum_is_coloured_on_a_terminal_that_wants_it(server, env, coloured):
    with Terminal("latency", "--dist", "--interval", 0.2, "--seconds", 0.5, "--rate", 0, server=server, env=env) as t:
        assert t.finish() == 0
        assert ("\033[48;5;" in t.text) == coloured


# ---- bad input ----

@pytest.mark.parametrize("args", [
    ["--nonsense"], ["extra"], ["--rate", "-1"], ["--rate", "fast"], ["--count", "0"], ["--count", "1.5"], ["--seconds", "0"],
    ["--transport", "carrier"], ["--wait", "long"], ["-p", "0"], ["-p", "65536"], ["-p", "80x"], ["-s", ""], ["-s", "x" * 200], ["-n", "-1"],
    ["--history", "--dist"], ["--json", "--dist"], ["--transport", "tcp", "--wait", "poll"], ["--rate"]], ids=" ".join)
def test_wrong_usage_exits_2_and_says_what_is_wrong(args):
    done = tool("latency", *args)
    assert done.returncode == 2 and not done.stdout and done.stderr.startswith("redis-shm")
    assert len(done.stderr.splitlines()) <= 2


def test_help_has_examples_and_every_option():
    done = tool("latency", "--help")
    assert done.returncode == 0 and "Examples:" in done.stdout and not done.stderr
    for option in ("--transport", "--rate", "--history", "--dist", "--interval", "--intrinsic", "--json", "-h, --host", "-s, --socket"):
        assert option in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) < 140


def test_a_server_that_is_not_there():
    fails(tool("latency", "-p", free_port()), "refused", "is the server running")
    fails(tool("latency", "-s", "/nonexistent/redis.sock"), "/nonexistent/redis.sock", "no such file")
    fails(tool("latency", "-h", "no-such-host.invalid", "--transport", "tcp"), "no-such-host.invalid")


def test_another_host_is_refused_before_connecting():
    begin = time.monotonic()
    fails(tool("latency", "-h", "192.0.2.1"), "another host")  # reserved for documentation: connecting would time out
    fails(tool("latency", "-h", "192.0.2.1", "--transport", "unix"), "another host")
    assert time.monotonic() - begin < 2


def test_a_server_without_the_module(start_server):
    server = start_server(module=False)
    fails(tool("latency", server=server), "module", "loadmodule")
    assert tool_json("latency", "--transport", "unix", "--count", 5, server=server)["samples"] == 5


def test_a_server_without_a_unix_socket(start_server):
    server = start_server()
    path = server.path
    assert tool_json("latency", "--transport", "unix", "--count", 5, server=server, unix=False)["server"] == path


def test_passwords(start_server):
    server = start_server(args=["--requirepass", "secret"], wait=False)
    assert eventually(lambda: "Ready to accept" in server.log())
    for unix in (True, False):
        fails(tool("latency", server=server, unix=unix), "password")
        fails(tool("latency", "-a", "wrong", server=server, unix=unix), "wrong password")
        fails(tool("latency", "-3", "-a", "wrong", server=server, unix=unix), "wrong password")
        for transport in ("tcp", "unix", "shm"):
            args = ["--count", 5, "--transport", transport]
            assert tool_json("latency", "-a", "secret", *args, server=server, unix=unix)["samples"] == 5
            assert tool_json("latency", *args, "-3", server=server, unix=unix, env={"REDISCLI_AUTH": "secret"})["samples"] == 5
    server.process.terminate()
    server.wait_exit()


def test_a_password_where_there_is_none(server):
    fails(tool("latency", "-a", "secret", server=server), "has no password")
    assert tool_json("latency", "--count", 5, server=server, env={"REDISCLI_AUTH": "secret"})["samples"] == 5


def test_users_and_permissions(server):
    admin = server.client()
    admin.execute_command("ACL", "SETUSER", "meter", "on", ">secret", "+@all", "-shm.open")
    try:
        login = ["--user", "meter", "-a", "secret"]
        fails(tool("latency", *login, server=server), "+shm.open", "meter")
        fails(tool("latency", "--user", "meter", server=server), "needs a password")
        fails(tool("latency", "--user", "nobody", "-a", "x", server=server), "wrong password", "nobody")
        admin.execute_command("ACL", "SETUSER", "meter", "+shm.open")
        assert tool_json("latency", *login, "--count", 5, server=server)["samples"] == 5
        admin.execute_command("ACL", "SETUSER", "meter", "-ping")
        done = tool("latency", *login, "--count", 5, server=server)
        assert done.returncode == 1 and "NOPERM" in done.stderr and not done.stdout
    finally:
        admin.execute_command("ACL", "DELUSER", "meter")


def test_what_answers_is_no_redis_server():
    import socket
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(4)

        def answer():
            c, _ = listener.accept()
            with c:
                c.recv(1000)
                c.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        t = threading.Thread(target=answer)
        t.start()
        fails(tool("latency", "-p", listener.getsockname()[1]), "no Redis server")
        t.join()


def test_a_full_output_is_an_error(server):
    with open("/dev/full", "w") as full:
        done = tool("latency", "--count", 5, server=server, stdout=full)
    assert done.returncode == 1 and "No space left" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_server_that_dies_is_an_error_after_the_figures(start_server):
    server = start_server()
    process = started("latency", "--history", "--rate", 1000, server=server)
    assert eventually(lambda: server.stats()["sessions"] == 1)
    time.sleep(0.2)
    server.kill()
    done = finish(process)
    assert done.returncode == 1 and "connection was lost" in done.stderr and len(done.stderr.splitlines()) == 1
    assert "p99.99" in done.stdout


def test_a_server_that_hangs_is_an_error_after_three_seconds(start_server):
    server = start_server()
    process = started("latency", "--history", "--rate", 1000, server=server)
    assert eventually(lambda: server.stats()["sessions"] == 1)
    server.process.send_signal(signal.SIGSTOP)
    try:
        done = finish(process)
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert done.returncode == 1 and "no reply within 3 s" in done.stderr
