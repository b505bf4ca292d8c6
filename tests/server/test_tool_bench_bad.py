"""redis-shm bench and what is wrong: options, servers that are not there or answer wrongly, files that cannot be written."""
import json
import os
import stat
import threading

import pytest

from bench_tool import FakeServer, Store, at, bulk, measure, run

SHORT = ["--seconds", "0.2", "--rounds", "1", "--warmup", "0", "-q"]


@pytest.fixture
def fake():
    servers = []

    def start(*args, **options):
        servers.append(FakeServer(*args, **options))
        return servers[-1]

    yield start
    for s in servers:
        s.close()


def refused(p, code, *words):
    """One clear line (two with the hint where to look) that has these words in it."""
    lines = p.stderr.strip().splitlines()
    assert p.returncode == code, (p.returncode, p.stderr)
    assert 1 <= len(lines) <= 2 and all(line.startswith("redis-shm") for line in lines), p.stderr
    for word in words:
        assert word in p.stderr, p.stderr
    return p


# ---- options ----

def test_help_shows_every_option_and_examples():
    p = run("--help")
    assert p.returncode == 0 and p.stderr == "" and "Examples:" in p.stdout
    for option in ("transport", "clients", "threads", "pipeline", "requests", "seconds", "warmup", "rounds", "command", "ratio", "value-bytes", "keys",
                   "key-choice", "think-us", "rate", "verify", "mode", "client", "start", "json", "csv", "hdr-log", "plot", "spin-us"):
        assert "--" + option in p.stdout, option


@pytest.mark.parametrize("args,word", [
    (["--bogus"], "bogus"), (["stray"], "stray"), (["--transport", "pigeon"], "pigeon"), (["--transport", ""], "--transport"),
    (["--mode", "asleep"], "asleep"), (["--clients", "0"], "--clients"), (["--clients", "1.5"], "whole"), (["--clients", "1,,2"], "--clients"),
    (["--pipeline", "-1"], "--pipeline"), (["--value-bytes", "5:1"], "5:1"), (["--value-bytes", "1GiB"], "1GiB"), (["--value-bytes", "x"], "x"),
    (["--ratio", "0:0"], "0:0"), (["--key-choice", "zipf:0"], "zipf"), (["--key-choice", "best"], "best"), (["--keys", "0"], "--keys"),
    (["--rate", "-5"], "--rate"), (["--seconds", "nan"], "--seconds"), (["--rounds", "0"], "--rounds"), (["--plot", "x.pdf"], ".png or .svg"),
    (["--command", ""], "--command"), (["--command", "GET 'x"], "quote"), (["--client", "both"], "both"), (["--think-us", "x"], "--think-us"),
    (["--clients", ",".join(["1"] * 17)], "at most"), (["--port", "0"], "--port"), (["-n", "-1"], "--db"),
], ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_a_wrong_option_is_named_and_nothing_is_done(args, word):
    refused(run(*args), 2, word)


@pytest.mark.parametrize("args,word", [
    (["--threads", "2"], "--client async"), (["--spin-us", "2"], "--client async"), (["--clients", "5000"], "--client async"),
    (["--rate", "10", "--think-us", "10"], "--think-us"), (["--transport", "tcp", "--mode", "poll"], "--mode"),
    (["--server", "redis-server"], "--start"), (["--start", "-p", "7"], "--start"), (["--json", "-", "--csv", "-"], "standard output"),
    (["--verify", "--command", "LPUSH __key__ x"], "--verify"),
    (["--clients", "1,2,3,4,5,6,7,8", "--pipeline", "1,2,3,4,5,6,7,8", "--value-bytes", "1,2"], "256"),
], ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_options_that_do_not_go_together_are_refused(args, word):
    refused(run(*args), 2, word)


# ---- servers ----

def test_a_server_that_is_not_there(tmp_path):
    refused(run("-p", "1"), 1, "127.0.0.1:1")
    refused(run("-s", tmp_path / "none.sock"), 1, "none.sock")


def test_shared_memory_to_another_host_is_refused_before_connecting():
    refused(run("-h", "192.0.2.1", "--transport", "shm", timeout=10), 1, "another host")


def test_without_the_module_the_default_list_has_a_row_that_says_why(start_server):
    server = start_server(module=False)
    p = run(*SHORT, *at(server))
    assert p.returncode == 0, p.stderr
    row = [line for line in p.stdout.splitlines() if line.startswith("shm")]
    assert len(row) == 1 and "not measured" in row[0] and "module" in row[0]
    out = measure(*SHORT, *at(server))
    assert [r["transport"] for r in out["runs"]] == ["tcp", "unix"]
    assert [m["transport"] for m in out["missing"]] == ["shm"] and "module" in out["missing"][0]["reason"]


def test_without_the_module_shared_memory_by_name_is_an_error(start_server, tmp_path):
    server = start_server(module=False)
    for transports in ("shm", "tcp,shm"):
        refused(run(*SHORT, *at(server), "--transport", transports, "--json", tmp_path / "x.json"), 1, "module")
    assert list(tmp_path.iterdir()) == []


def test_without_a_unix_socket_the_others_are_measured(start_server):
    server = start_server(args=["--unixsocket", ""], wait=False)
    assert server.wait_log("Ready to accept connections")
    out = measure(*SHORT, *at(server, unix=False))
    assert [r["transport"] for r in out["runs"]] == ["tcp", "shm"] and out["missing"][0]["transport"] == "unix"


def test_a_wrong_password_and_a_missing_one(start_server):
    server = start_server(config="requirepass sesame", wait=False)
    assert server.wait_log("Ready to accept connections")
    refused(run(*at(server), "-a", "wrong"), 1, "wrong password")
    refused(run(*at(server)), 1, "wants a password")


def test_too_many_sessions_for_the_server_is_an_error(start_server):
    server = start_server(module_args=["max-sessions", "3"])
    for client in ("sync", "async"):
        refused(run(*SHORT, *at(server), "--transport", "shm", "-c", "8", "--client", client), 1, "shared memory")


def test_error_replies_are_counted_and_make_the_run_fail(server):
    p = run(*SHORT, *at(server), "--transport", "unix,shm", "--command", "INCR __key__ surplus")
    assert p.returncode == 1 and "wrong number of arguments" in p.stdout


# ---- replies that are wrong ----

@pytest.mark.parametrize("client", ["sync", "async"])
def test_verify_finds_each_wrong_reply_and_says_what_came(fake, client):
    class Wrong(Store):
        def __call__(self, words):
            reply = super().__call__(words)
            if words[0].upper() == b"GET" and self.gets % 10 == 0:
                value = self.values[words[1]]
                kind = self.gets // 10 % 4
                return [bulk(value[:-1]), bulk(value[:-1] + b"!"), b"$-1\r\n", b"+OK\r\n"][kind]
            return reply

    store = Wrong()
    server = fake(store)
    p = run("-q", "-p", server.port, "--transport", "tcp", "--requests", "1000", "--rounds", "2", "--warmup", "0", "--verify", "--keys", "20",
            "--client", client, "--json", "-")
    assert p.returncode == 1
    run_ = json.loads(p.stdout)["runs"][0]
    assert run_["requests"] == 1000 and run_["errors"] == 100 == run_["wrong_replies"]
    p = run("-q", "-p", server.port, "--transport", "tcp", "--requests", "1000", "--rounds", "1", "--warmup", "0", "--verify", "--client", client)
    assert p.returncode == 1 and "wrong replies; the first: expected the value of key 0, got" in p.stdout


def test_verify_finds_replies_that_are_in_the_wrong_order(fake):
    class Swapped(Store):
        held = None

        def __call__(self, words):
            reply = super().__call__(words)
            if words[0].upper() != b"GET":
                return reply
            if self.gets % 100 == 45:
                self.held = reply
                return None
            held, self.held = self.held, None
            return reply + held if held else reply

    server = fake(Swapped())
    p = run("-q", "-p", server.port, "--transport", "tcp", "--requests", "1000", "--rounds", "1", "--warmup", "0", "--verify", "--keys", "1000",
            "--key-choice", "sequential", "-P", "10", "--json", "-")
    assert p.returncode == 1 and json.loads(p.stdout)["runs"][0]["wrong_replies"] == 20


def test_without_verify_a_wrong_value_is_nobodys_business(fake):
    server = fake(lambda words: b"+OK\r\n")
    p = run("-q", "-p", server.port, "--transport", "tcp", "--requests", "100", "--rounds", "1", "--warmup", "0")
    assert p.returncode == 0, p.stderr


@pytest.mark.parametrize("client", ["sync", "async"])
def test_connecting_is_not_counted(fake, client):
    server = fake(Store(), greeting_s=0.8)
    out = measure("-q", "-p", server.port, "--transport", "tcp", "--seconds", "0.4", "--rounds", "1", "--warmup", "0", "-c", "2", "--client", client)
    r = out["runs"][0]
    assert r["latency_us"]["max"] < 700_000
    assert r["ops_per_sec"] > r["requests"] / 0.8  # the greeting's time would at least double the divisor


def test_keys_and_values_are_what_was_asked_for(fake):
    server = fake(Store())
    p = run("-q", "-p", server.port, "--transport", "tcp", "--requests", "300", "--rounds", "1", "--warmup", "0", "--command",
            "SET __key__ 'a __data__ b'", "--keys", "100", "--key-choice", "sequential", "--value-bytes", "5:9", "--verify")
    assert p.returncode == 0, p.stdout + p.stderr
    sets = [w for w in server.commands if w[0] == b"SET"]
    assert [int(w[1].rsplit(b":", 1)[1]) for w in sets] == [i % 100 for i in range(300)]
    assert all(w[2].startswith(b"a ") and w[2].endswith(b" b") for w in sets)
    assert {len(w[2]) - 4 for w in sets} == {5, 6, 7, 8, 9}
    dels = [w for w in server.commands if w[0] == b"DEL"]
    assert len(dels) == 100


def test_a_mix_has_the_ratio_that_was_asked_for(fake):
    server = fake(Store())
    p = run("-q", "-p", server.port, "--transport", "tcp", "--requests", "4000", "--rounds", "1", "--warmup", "0", "--command", "mixed", "--ratio", "1:3")
    assert p.returncode == 0, p.stderr
    sets = sum(w[0] == b"SET" for w in server.commands) - 1  # one fills
    assert 850 < sets < 1150  # 1000 expected, standard deviation 27


def test_the_same_seed_sends_the_same_requests(fake):
    sent = []
    for seed in (5, 5, 6):
        server = fake(Store())
        run("-q", "-p", server.port, "--transport", "tcp", "--requests", "100", "--rounds", "1", "--warmup", "0", "--keys", "50", "--seed", seed)
        sent.append([w for w in server.commands if w[0] == b"GET"])
    assert len(sent[0]) == 100 and sent[0] == sent[1] != sent[2]


# ---- files ----

@pytest.mark.parametrize("option,name", [("--json", "x.json"), ("--csv", "x.csv"), ("--hdr-log", "x.hlog"), ("--plot", "x.png")])
def test_a_file_that_cannot_be_written_is_found_out_before_the_run(server, tmp_path, option, name):
    gets = server.client().info("commandstats").get("cmdstat_get", {"calls": 0})["calls"]
    refused(run(*SHORT, *at(server), option, tmp_path / "none" / name), 1, name, "No such file")
    directory = tmp_path / name
    directory.mkdir()
    refused(run(*SHORT, *at(server), option, directory), 1, name, "directory")
    assert server.client().info("commandstats").get("cmdstat_get", {"calls": 0})["calls"] == gets


def test_a_full_disk_leaves_no_half_file(server, tmp_path):
    p = refused(run(*SHORT, *at(server), "--transport", "unix", "--json", "/dev/full"), 1, "/dev/full", "No space")
    assert "unix" in p.stdout


def test_a_run_that_fails_leaves_an_old_file_as_it_was(tmp_path):
    old = tmp_path / "out.json"
    old.write_text("old")
    run("-p", "1", "--json", old)
    assert old.read_text() == "old" and list(tmp_path.iterdir()) == [old]


def test_a_new_file_has_the_mode_of_any_other(server, tmp_path):
    out = tmp_path / "out.json"
    assert run(*SHORT, *at(server), "--json", out).returncode == 0
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o666 & ~mask


def test_without_gnuplot_a_chart_is_refused_before_the_run(server, tmp_path):
    p = run(*SHORT, *at(server), "--plot", tmp_path / "x.png", env={"PATH": str(tmp_path)})
    refused(p, 1, "gnuplot")
    assert list(tmp_path.iterdir()) == [] and p.stdout == ""


def test_a_server_that_sends_nonsense_is_one_line(fake):
    started = threading.Event()

    def nonsense(words):
        started.set()
        return b"%nonsense\x01\r\n" if words[0] == b"GET" else b"+OK\r\n"

    p = run(*SHORT, "-p", fake(nonsense).port, "--transport", "tcp")
    assert started.is_set()
    refused(p, 1, "TCP", "lost")
