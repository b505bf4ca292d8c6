"""redis-shm bench against a real server: what it sends, what it counts, and what it writes."""
import base64
import csv
import importlib
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import pytest

from bench_tool import TOOL, at, leftovers, measure, run
from redis_server import BUILD, HAS_MODULE_CONFIGURATION, eventually

SHORT = ["--seconds", "0.2", "--rounds", "2", "--warmup", "0.05", "-q"]
COUNTED = ["--rounds", "2", "--warmup", "0", "-q"]
TRANSPORTS = ["tcp", "unix", "shm"]


def calls(server, command):
    stats = server.client().info("commandstats")
    return stats.get(f"cmdstat_{command}", {"calls": 0})["calls"]


# ---- the figures ----

def test_json_has_a_row_for_each_transport_with_every_figure(server):
    out = measure(*SHORT, *at(server))
    assert {"host", "runs"} <= set(out)
    assert [r["transport"] for r in out["runs"]] == TRANSPORTS
    assert [r["mode"] for r in out["runs"]] == [None, None, "adaptive"]
    for r in out["runs"]:
        assert {"transport", "mode", "clients", "pipeline", "command", "value_bytes", "think_us", "requests", "errors", "ops_per_sec",
                "latency_us", "cpu_s_per_million"} <= set(r)
        latency = [r["latency_us"][k] for k in ("min", "p50", "p90", "p99", "p99_9", "p99_99", "max")]
        assert latency == sorted(latency) and latency[0] > 0
        assert r["latency_us"]["min"] <= r["latency_us"]["mean"] <= r["latency_us"]["max"]
        assert r["requests"] > 0 and r["errors"] == 0 and r["ops_per_sec"] > 0
        assert r["cpu_s_per_million"]["client"] > 0 and r["cpu_s_per_million"]["server"] > 0
        assert r["of_rounds"]["rounds"] == 2
        spectrum = r["spectrum_us"]
        assert spectrum[0][0] == 0 and spectrum[-1][0] == 1 and spectrum[-1][1] == r["latency_us"]["max"]
        assert all(a[0] < b[0] and a[1] <= b[1] for a, b in zip(spectrum, spectrum[1:]))


@pytest.mark.parametrize("client", ["sync", "async"])
@pytest.mark.parametrize("clients,pipeline", [(1, 1), (3, 1), (2, 7), (1, 50)])
def test_exactly_the_requests_asked_for_are_sent_and_counted(server, client, clients, pipeline):
    for transport in TRANSPORTS:
        before = calls(server, "get")
        out = measure(*COUNTED, *at(server), "--transport", transport, "--requests", "1001", "--client", client, "-c", clients, "-P", pipeline)
        assert out["runs"][0]["requests"] == 1001
        assert calls(server, "get") - before == 1001


def test_what_is_sent_during_the_warm_up_is_not_counted(server):
    before = calls(server, "get")
    out = measure("-q", *at(server), "--transport", "unix", "--requests", "100", "--rounds", "1", "--warmup", "0.1")
    assert out["runs"][0]["requests"] == 100
    assert calls(server, "get") - before > 100


@pytest.mark.parametrize("client", ["sync", "async"])
def test_every_reply_of_mixed_load_with_all_sizes_and_keys_is_right(server, client):
    out = measure(*SHORT, *at(server), "--verify", "--command", "mixed", "--ratio", "1:1", "--keys", "200", "--key-choice", "zipf",
                  "--value-bytes", "0:3000,100KiB", "--pipeline", "1,16", "--clients", "3", "--client", client)
    assert len(out["runs"]) == 12
    for r in out["runs"]:
        assert r["errors"] == 0 and r["requests"] > 0
    assert calls(server, "set") > 200


@pytest.mark.parametrize("command", ["PING", "ECHO __data__", "SET __key__ __data__", "set", "get"])
def test_known_commands_can_be_verified(server, command):
    out = measure(*SHORT, *at(server), "--verify", "--keys", "10", "--command", command, "-P", "3")
    assert all(r["errors"] == 0 for r in out["runs"])


def test_modes_and_lists_become_rows_of_their_own(server):
    out = measure("--seconds", "0.05", "--rounds", "1", "--warmup", "0.01", "-q", *at(server), "--mode", "adaptive,poll,block", "--clients",
                  "1,2", "--think-us", "0,50")
    rows = [(r["transport"], r["mode"], r["clients"], r["think_us"]) for r in out["runs"]]
    assert len(rows) == 2 * 2 * 5 and len(set(rows)) == len(rows)
    assert {m for t, m, _, _ in rows if t == "shm"} == {"adaptive", "poll", "block"}


def test_resp3_and_a_password_and_a_user_and_a_database_work(start_server):
    server = start_server(config="requirepass sesame\nuser ann on >secret ~* &* +@all", wait=False)
    assert server.wait_log("Ready to accept connections")
    for client in ("sync", "async"):
        for who in (["-a", "sesame"], ["-a", "sesame", "-3"], ["--user", "ann", "-a", "secret", "-3", "-n", "5"], ["--user", "ann", "-a", "secret"]):
            out = measure(*COUNTED, *at(server), "--requests", "50", "--verify", "--client", client, *who)
            assert [r["requests"] for r in out["runs"]] == [50] * 3
    out = measure(*COUNTED, *at(server), "--requests", "50", env={"REDISCLI_AUTH": "sesame"})
    assert len(out["runs"]) == 3


def test_our_keys_are_gone_afterwards_and_others_stay(server):
    server.client().set("redis-shm", "mine")
    for command in ("get", "set", "mixed"):
        measure(*COUNTED, *at(server), "--requests", "500", "--keys", "100", "--command", command, "-d", "10,20")
    assert server.client().keys("*") == [b"redis-shm"]
    server.client().delete("redis-shm")


def test_the_servers_setting_is_left_alone_and_told(start_server):
    if not HAS_MODULE_CONFIGURATION:
        pytest.skip("this server has no module configuration")
    server = start_server(module_args=["wait-mode", "block"])
    p = run(*SHORT, *at(server), "--mode", "poll")
    assert p.returncode == 0 and "'block'" in p.stdout
    assert server.client().config_get("shm.wait-mode") == {"shm.wait-mode": "block"}


def test_a_pause_is_kept_between_requests(server):
    for client in ("sync", "async"):
        out = measure("--seconds", "0.3", "--rounds", "1", "-q", *at(server), "--think-us", "3000", "--client", client)
        assert all(5 <= r["requests"] <= 101 for r in out["runs"]), [r["requests"] for r in out["runs"]]


def test_the_same_transport_twice_gives_a_ratio_of_one_within_its_spread(server):
    out = measure("--seconds", "1.5", "--rounds", "15", "--warmup", "0.02", "-q", *at(server), "--transport", "shm,shm")
    better = out["runs"][1]["times_better"]
    for what in ("ops_per_sec", "p50"):
        assert better[what]["min"] <= 1 <= better[what]["max"], better
        assert 0.5 < better[what]["median"] < 2, better


# ---- an open loop ----

@pytest.mark.parametrize("client", ["sync", "async"])
def test_an_open_loop_sends_at_its_rate(server, client):
    out = measure("--seconds", "1", "--rounds", "1", "--warmup", "0.1", "-q", *at(server), "--rate", "400", "-c", "4", "--client", client)
    for r in out["runs"]:
        assert 399 <= r["requests"] + r["open_loop"]["unsent"] <= 401
        assert r["requests"] >= 390


@pytest.mark.parametrize("client,transport", [("sync", "unix"), ("sync", "shm"), ("async", "unix"), ("async", "shm")])
def test_a_server_that_stops_is_seen_by_all_requests_that_were_due_meanwhile(start_server, client, transport):
    server = start_server()
    rate, seconds, pause_s = 1000, 2.0, 0.2
    p = subprocess.Popen([TOOL, "bench", "--json", "-", "-q", *map(str, at(server)), "--transport", transport, "--rate", str(rate), "--client",
                          client, "--seconds", str(seconds), "--rounds", "1", "--warmup", "0.3"], stdout=subprocess.PIPE, text=True)
    time.sleep(1.2)
    os.kill(server.pid, signal.SIGSTOP)
    stopped = time.monotonic()
    time.sleep(pause_s)
    os.kill(server.pid, signal.SIGCONT)
    paused_s = time.monotonic() - stopped
    out, _ = p.communicate(timeout=30)
    r = json.loads(out)["runs"][0]
    latency = r["latency_us"]
    # 200 of 2000 requests were due during the pause; their latencies lie evenly between 0 and its length. So the slowest hundredth
    # waited for at least nine tenths of it: a loop that is not open would have one slow request, and a p99 that knows nothing of it.
    assert r["requests"] + r["open_loop"]["unsent"] in (1999, 2000, 2001)
    assert latency["max"] >= 0.95e6 * pause_s and latency["max"] <= 1e6 * (paused_s + 1)
    assert latency["p99"] >= 0.8e6 * pause_s
    share = sum(b[0] - a[0] for a, b in zip(r["spectrum_us"], r["spectrum_us"][1:]) if b[1] > 0.5e6 * pause_s)
    assert 0.03 <= share <= 0.3, share  # half of them: 0.05; more if the machine paused too


def test_a_rate_that_cannot_be_reached_is_said_to_be_so(server):
    p = run("--seconds", "0.3", "--rounds", "1", "--warmup", "0", "-q", *at(server), "--transport", "unix", "--rate", "50000000")
    assert p.returncode == 0 and "could not be sent" in p.stdout


# ---- files ----

def test_csv_has_a_line_for_each_row_and_the_same_number_of_fields(start_server):
    server = start_server(module=False)
    p = run(*SHORT, *at(server), "--csv", "-", "--command", 'SET "a ""key" __data__')
    rows = list(csv.reader(io.StringIO(p.stdout)))
    assert p.returncode == 0, p.stderr
    assert len(rows) == 4 and {len(r) for r in rows} == {len(rows[0])}
    table = [dict(zip(rows[0], r)) for r in rows[1:]]
    assert [t["transport"] for t in table] == TRANSPORTS
    assert float(table[0]["p50_us"]) > 0 and table[0]["missing"] == "" and "module" in table[2]["missing"]


def hdrh():
    """An implementation of HdrHistogram by somebody else: PyPI's hdrhistogram, installed into the build directory if it is not there."""
    target = BUILD / "tests" / "python"
    sys.path.append(str(target))
    try:
        return importlib.import_module("hdrh.histogram"), importlib.import_module("hdrh.log")
    except ImportError:
        p = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", str(target), "hdrhistogram"], capture_output=True, text=True)
        if p.returncode != 0:
            pytest.skip("PyPI's hdrhistogram cannot be installed: " + (p.stderr.strip().splitlines() or ["no message"])[-1])
        importlib.invalidate_caches()
        return importlib.import_module("hdrh.histogram"), importlib.import_module("hdrh.log")


def test_another_implementation_of_hdrhistogram_reads_the_log(server, tmp_path):
    histogram, log = hdrh()
    path = tmp_path / "out.hlog"
    p = run("--requests", "4000", "--rounds", "2", "--warmup", "0", "-q", *at(server), "--json", tmp_path / "out.json", "--hdr-log", path)
    assert p.returncode == 0, p.stderr
    runs = {r["label"]: r for r in json.loads((tmp_path / "out.json").read_text())["runs"]}
    sums = {label: histogram.HdrHistogram(1, 60_000_000_000, 3) for label in runs}
    lines = 0
    reader = log.HistogramLogReader(str(path), histogram.HdrHistogram(1, 60_000_000_000, 3))
    while (h := reader.get_next_interval_histogram()) is not None:
        assert h.get_total_count() == 2000
        sums[h.get_tag()].add(h)
        lines += 1
    assert lines == 6
    for label, h in sums.items():
        r = runs[label]
        assert h.get_total_count() == r["requests"] == 4000
        for share, name in ((50, "p50"), (90, "p90"), (99, "p99"), (99.9, "p99_9")):
            assert h.get_value_at_percentile(share) == pytest.approx(r["latency_us"][name] * 1000, rel=2e-3)
        assert h.get_max_value() == pytest.approx(r["latency_us"]["max"] * 1000, rel=2e-3)
        assert h.get_mean_value() == pytest.approx(r["latency_us"]["mean"] * 1000, rel=2e-3)
    text = [line for line in path.read_text().splitlines() if line.startswith("Tag=")]
    assert all(base64.b64decode(line.rsplit(",", 1)[1], validate=True)[:4] == b"\x1c\x84\x93\x14" for line in text)


def test_charts_are_drawn_as_png_and_svg(server, tmp_path):
    before = leftovers()
    p = run(*SHORT, *at(server), "--plot", tmp_path / "a b.png", "--plot", tmp_path / "it's.svg", "--clients", "1,2", "--command", "ECHO 'it''s'")
    assert p.returncode == 0, p.stderr
    assert (tmp_path / "a b.png").read_bytes().startswith(b"\x89PNG\r\n") and "</svg>" in (tmp_path / "it's.svg").read_text()
    assert "warning" not in p.stderr and "gnuplot" not in p.stderr
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a b.png", "it's.svg"] and leftovers() == before


def test_the_spectrum_is_printed_from_the_minimum_to_the_maximum(server):
    p = run(*SHORT, *at(server), "--transport", "unix", "--spectrum")
    assert p.returncode == 0
    shares = [float(line.split()[1].rstrip("%")) for line in p.stdout.splitlines() if line.count("%") == 1 and line.split()[1].endswith("%")]
    assert shares[0] == 0 and shares[-1] == 100 and len(shares) > 20 and shares == sorted(shares)


# ---- a private server, and an early end ----

def test_start_brings_up_a_server_sets_its_mode_and_leaves_nothing(tmp_path):
    before = leftovers()
    p = subprocess.Popen([TOOL, "bench", "--start", "-q", "--transport", "shm", "--mode", "poll", "--seconds", "2", "--rounds", "1"],
                         stdout=subprocess.PIPE, text=True)
    paths = []

    def sockets():
        paths[:] = [f"/tmp/{d}/server.sock" for d in leftovers() - before if os.path.exists(f"/tmp/{d}/server.sock")]
        return paths

    assert eventually(sockets)
    if HAS_MODULE_CONFIGURATION:
        import redis
        with redis.Redis(unix_socket_path=paths[0]) as c:
            assert eventually(lambda: c.config_get("shm.wait-mode") == {"shm.wait-mode": "poll"})
    assert p.wait(30) == 0
    assert "shm poll" in p.stdout.read() and leftovers() == before


@pytest.mark.parametrize("client", ["sync", "async"])
def test_ctrl_c_prints_what_there_is_and_ends_the_private_server(tmp_path, client):
    before = leftovers()
    out = tmp_path / "out.json"
    p = subprocess.Popen([TOOL, "bench", "--start", "-q", "--seconds", "60", "--rounds", "60", "--warmup", "0.1", "--client", client, "--json", out],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert eventually(lambda: leftovers() - before)
    time.sleep(6)
    p.send_signal(signal.SIGINT)
    stdout, stderr = p.communicate(timeout=20)
    assert p.returncode == -signal.SIGINT, stderr
    assert "Interrupted" in stdout and stdout.count("\nshm ") >= 1 and "interrupted" in stderr
    figures = json.loads(out.read_text())
    assert figures["interrupted"] is True and len(figures["runs"]) == 3
    assert leftovers() == before and [f.name for f in tmp_path.iterdir()] == ["out.json"]


def test_ctrl_c_ends_it_also_when_the_server_hangs(start_server):
    server = start_server()
    for client in ("sync", "async"):
        for transport in (["tcp"], ["unix"], ["shm"], ["shm", "--mode", "poll"], ["shm", "--mode", "block"]):
            p = subprocess.Popen([TOOL, "bench", "-q", *map(str, at(server)), "--seconds", "60", "--rounds", "1", "--client", client,
                                  "--transport", *transport], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            before = calls(server, "get")
            assert eventually(lambda: calls(server, "get") > before)
            os.kill(server.pid, signal.SIGSTOP)
            try:
                time.sleep(0.2)
                p.send_signal(signal.SIGINT)
                ended = eventually(lambda: p.poll() is not None, 15)
            finally:
                os.kill(server.pid, signal.SIGCONT)
            _, stderr = p.communicate(timeout=20)
            assert ended and p.returncode == -signal.SIGINT, stderr


def test_progress_on_a_terminal_is_one_line_with_rate_and_time_left(server):
    ours, its = pty.openpty()
    p = subprocess.Popen([TOOL, "bench", *map(str, at(server)), "--seconds", "1.5", "--rounds", "1", "--transport", "unix"], stdout=subprocess.PIPE, stderr=its)
    os.close(its)
    text = b""
    try:
        while chunk := os.read(ours, 4096):
            text += chunk
    except OSError:  # EIO: the other end is closed
        pass
    os.close(ours)
    p.communicate()
    assert p.returncode == 0 and b"\n" not in text and text.endswith(b"\r\x1b[K")
    lines = [line for line in text.split(b"\r\x1b[K") if line]
    assert len(lines) >= 3 and all(re.search(rb"unix, 1 client, \d+ requests/s, about \d+ s left$", line) for line in lines), lines


def test_a_server_that_dies_is_one_clear_line_and_no_file(start_server, tmp_path):
    for client in ("sync", "async"):
        server = start_server()
        p = subprocess.Popen([TOOL, "bench", "-q", *map(str, at(server)), "--transport", "shm", "--seconds", "60", "--rounds", "1", "--client",
                              client, "-c", "3", "--json", tmp_path / "out.json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert eventually(lambda: calls(server, "get") > 0)
        server.kill()
        _, stderr = p.communicate(timeout=20)
        lines = stderr.strip().splitlines()
        assert p.returncode == 1 and "lost" in lines[0] and len(lines) == 1, stderr
        assert list(tmp_path.iterdir()) == []
