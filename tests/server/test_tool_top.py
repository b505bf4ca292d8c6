"""redis-shm top: the rows are the server's sessions, the rates are what they did, and the terminal is left as it was."""
import json
import re
import signal
import threading

import pytest

from redis_server import eventually, free_port
from tool import Terminal, fails, finish, started, tool, tool_json

ENTER, LEAVE = "\033[?1049h", "\033[?1049l"


def has_looked(server):
    """top has taken its first look and waits for the second."""
    return eventually(lambda: any(c["cmd"] in ("shm.clients", "client|list", "client") and c["id"] != str(asker.client_id())
                                  for asker in [server.client()] for c in asker.client_list()))


def frames(text):
    """What stood on the screen, one list of lines for each drawing, without control sequences."""
    return [re.sub(r"\033\[[0-9;?]*[a-zA-Z]", "", frame).split("\r\n") for frame in text.split("\033[H")[1:]]


def test_without_sessions_it_says_so(server):
    done = tool("top", "--once", "--interval", 0.1, server=server)
    assert done.returncode == 0 and "no session" in done.stdout and "sessions 0" in done.stdout and "\033" not in done.stdout


@pytest.mark.parametrize("protocol", [[], ["-3"]], ids=["resp2", "resp3"])
@pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])
def test_each_session_has_a_row_with_what_client_list_says(server, shm, unix, protocol):
    sessions = [shm(server, unix=i % 2 == 0) for i in range(3)]
    for i, c in enumerate(sessions):
        c.command("CLIENT", "SETNAME", f"worker-{i}")
    ids = [c.command("CLIENT", "ID") for c in sessions]
    result = tool_json("top", "--interval", 0.1, *protocol, server=server, unix=unix)
    rows = {row["id"]: row for row in result["sessions"]}
    assert sorted(rows) == sorted(ids) and result["stats"]["sessions"] == 3
    for i, session_id in enumerate(ids):
        assert rows[session_id]["name"] == f"worker-{i}" and rows[session_id]["command"] in ("client|id", "client")
        assert rows[session_id]["address"].startswith(server.path if i % 2 == 0 else "127.0.0.1:")
        assert rows[session_id]["state"] in ("hot", "parked") and rows[session_id]["ring_bytes"] == 65536
    text = tool("top", "--once", "--interval", 0.1, server=server, unix=unix).stdout
    for i, session_id in enumerate(ids):
        assert re.search(rf"^ +{session_id} (hot|parked) .* worker-{i} ", text, re.M)


def test_rates_are_what_happened_between_the_looks(server, shm):
    busy, busier, idle = shm(server), shm(server), shm(server)
    ids = [c.command("CLIENT", "ID") for c in (busier, busy, idle)]
    process = started("top", "--json", "--interval", 2, server=server)
    assert has_looked(server)
    for _ in range(100):
        busy.command("ECHO", "x" * 50)
    for _ in range(300):
        busier.command("PING")
    result = json.loads(finish(process).stdout)
    seconds, rows = result["seconds"], result["sessions"]
    assert seconds >= 2 and [row["id"] for row in rows] == ids  # the busiest first
    for row, requests in zip(rows, (300, 100, 0)):
        assert row["requests_per_second"] == pytest.approx(requests / seconds, rel=1e-3, abs=0.1)
    assert rows[1]["bytes_out_per_second"] == pytest.approx(100 * len(b"$50\r\n\r\n" + b"x" * 50) / seconds, rel=1e-3, abs=0.1)
    assert result["per_second"]["messages_in"] == pytest.approx(400 / seconds, rel=1e-3, abs=0.1)
    assert 0 <= result["server_cpus"] < 2


def test_a_session_opened_between_the_looks_counts_from_its_start(server, shm):
    process = started("top", "--json", "--interval", 2, server=server)
    assert has_looked(server)
    c = shm(server)
    for _ in range(50):
        c.command("PING")
    result = json.loads(finish(process).stdout)
    assert result["sessions"][0]["requests_per_second"] == pytest.approx(50 / result["seconds"], rel=1e-3, abs=0.1)


def test_a_full_ring_shows(server, shm):
    c = shm(server)
    for _ in range(40):
        c.append("ECHO", "z" * 1000)
    c.buffer_write()
    assert eventually(lambda: tool_json("top", "--interval", 0.05, server=server)["sessions"][0]["reply_fill_percent"] > 60)


def test_many_sessions_are_all_in_one_table(server, shm):
    for _ in range(120):
        shm(server)
    result = tool_json("top", "--interval", 0.1, server=server)
    assert len(result["sessions"]) == 120 and all("address" in row for row in result["sessions"])


def test_a_user_without_client_list_sees_the_figures_all_the_same(server, shm):
    session_id = shm(server).command("CLIENT", "ID")
    admin = server.client()
    admin.execute_command("ACL", "SETUSER", "watcher", "on", ">secret", "-@all", "+shm.stats", "+shm.clients")
    try:
        result = tool_json("top", "--interval", 0.1, "--user", "watcher", "-a", "secret", server=server)
        assert result["sessions"][0]["id"] == session_id and "name" not in result["sessions"][0]
        assert tool("top", "--once", "--interval", 0.1, "--user", "watcher", "-a", "secret", server=server).returncode == 0
        admin.execute_command("ACL", "SETUSER", "watcher", "-shm.clients")
        fails(tool("top", "--once", "--user", "watcher", "-a", "secret", server=server), "SHM.CLIENTS", "ACL SETUSER")
    finally:
        admin.execute_command("ACL", "DELUSER", "watcher")


# ---- live ----

def test_live_it_shows_the_sessions_and_q_gives_the_terminal_back(server, shm):
    c = shm(server)
    c.command("CLIENT", "SETNAME", "the-one")
    with Terminal("top", "--interval", 0.2, server=server, columns=120) as t:
        t.wait_text("the-one")
        assert not t.as_before() and t.text.index(ENTER) < t.text.index("the-one")
        t.wait_text("CPU", after=len(t.text))  # it goes on, and knows what the server used
        t.press("q")
        assert t.finish() == 0
        assert t.as_before() and t.text.rstrip().endswith(LEAVE) and t.text.count(ENTER) == t.text.count(LEAVE) == 1


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_gives_the_terminal_back(server, sig):
    with Terminal("top", server=server) as t:
        t.wait_text("no session")
        assert t.finish(sig) == -sig
        assert t.as_before() and t.text.rstrip().endswith(LEAVE)


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(server):
    with Terminal("top", "--interval", 0.2, server=server) as t:
        t.wait_text("no session")
        t.press("\x1a")
        t.wait_text(LEAVE)
        assert eventually(lambda: open(f"/proc/{t.process.pid}/stat").read().rsplit(")")[1].split()[0] == "T") and t.as_before()
        seen = len(t.text)
        t.process.send_signal(signal.SIGCONT)
        t.wait_text("no session", after=seen)
        t.press("q")
        assert t.finish() == 0 and t.as_before()


def test_it_fits_into_the_window_and_follows_its_size(server, shm):
    for _ in range(30):
        shm(server)
    with Terminal("top", "--interval", 30, server=server, lines=12, columns=70) as t:
        t.wait_text("parked")
        t.read(0.3)
        for frame in frames(t.text)[1:]:
            assert len(frame) == 12 and max(map(len, frame)) <= 70, frame
        seen = len(t.text)
        t.resize(40, 100)  # it does not wait for its next look
        t.wait_text("ADDRESS", after=seen)
        t.read(0.3)
        last = frames(t.text)[-1]
        assert 35 <= len(last) <= 40 and 70 < max(map(len, last)) <= 100
        t.press("q")
        assert t.finish() == 0


def test_keys_change_the_order(server, shm):
    ids = [shm(server).command("CLIENT", "ID") for _ in range(3)]
    busy = shm(server)
    ids.append(busy.command("CLIENT", "ID"))
    stop = threading.Event()

    def work():
        while not stop.is_set():
            busy.command("PING")
            stop.wait(0.001)

    t = threading.Thread(target=work)
    t.start()

    def order(text):
        return [int(line.split()[0]) for line in frames(text)[-1] if re.match(r" +\d+ (hot|parked)", line)]

    try:
        with Terminal("top", "--interval", 0.3, server=server) as terminal:
            assert eventually(lambda: order(terminal.read())[:1] == [ids[3]], 20)
            terminal.press("i")
            assert eventually(lambda: order(terminal.read()) == ids, 20)
            terminal.press("r")
            assert eventually(lambda: order(terminal.read())[:1] == [ids[3]], 20)
            terminal.press("q")
            assert terminal.finish() == 0
    finally:
        stop.set()
        t.join()


def test_a_server_that_goes_away_ends_it_with_a_message(start_server):
    server = start_server()
    with Terminal("top", "--interval", 0.2, server=server) as t:
        t.wait_text("no session")
        server.kill()
        assert t.finish() == 1
        assert t.as_before() and "connection was lost" in t.text[t.text.index(LEAVE):]


# ---- bad input ----

@pytest.mark.parametrize("args", [["--nonsense"], ["extra"], ["--interval", "0"], ["--interval", "x"], ["-p", "x"]], ids=" ".join)
def test_wrong_usage_exits_2_and_says_what_is_wrong(args):
    done = tool("top", *args)
    assert done.returncode == 2 and not done.stdout and done.stderr.startswith("redis-shm") and len(done.stderr.splitlines()) <= 2


def test_help_has_examples():
    done = tool("top", "--help")
    assert done.returncode == 0 and "Examples:" in done.stdout and "--once" in done.stdout


def test_servers_that_cannot_be_watched(start_server):
    fails(tool("top", "--once", "-p", free_port()), "refused")
    fails(tool("top", "--once", server=start_server(module=False)), "module", "loadmodule")


def test_a_full_output_is_an_error(server):
    with open("/dev/full", "w") as full:
        done = tool("top", "--json", "--interval", 0.05, server=server, stdout=full)
    assert done.returncode == 1 and "No space left" in done.stderr
