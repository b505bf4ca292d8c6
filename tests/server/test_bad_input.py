"""What bad input gets: a refusal that says what to do, no reply lost, and a connection that goes on as the plain socket it was."""
import socket
import ssl
import subprocess
import time

import pytest

from redis_server import eventually, free_port
from shm_client import ErrorReply
from wire import Rendezvous, Wire, encode, new_token

TRANSPORTS = pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])
TOKEN = "0123456789abcdef" * 2


def refused(server, unix, args, *words, counted=None):
    """Sends args, wants an error that holds all words, a plain connection afterwards, and the reason counted."""
    before = server.stats()
    with Wire(server, unix=unix) as w:
        reply = w.command(*args)
        assert isinstance(reply, ErrorReply), reply
        for word in words:
            assert word.lower() in reply.lower(), reply
        assert w.works()
        assert not w.fds
        after = server.stats()
        assert after["sessions"] == before["sessions"] and after["memory_bytes"] == before["memory_bytes"]
        if counted:
            assert after["refused_" + counted] == before["refused_" + counted] + 1
            assert after["refused"] == before["refused"] + 1
        # ... and it can still be opened.
        assert w.open_session().command("PING") == b"PONG"
    assert eventually(lambda: server.stats()["sessions"] == before["sessions"])


@TRANSPORTS
@pytest.mark.parametrize("args", [(), ("2",), ("2", TOKEN, "redis-shm-a", "MODE", "0600", "x")], ids=len)
def test_wrong_arity_is_refused(server, unix, args):
    refused(server, unix, ("SHM.OPEN",) + args, "wrong number of arguments")


@TRANSPORTS
@pytest.mark.parametrize("version", ["1", "3", "", "22", "02", "2.0", "-2", "two", " 2", b"2\0", b"\xff" * 300])
def test_another_version_is_refused_and_the_error_names_this_one(server, unix, version):
    refused(server, unix, ("SHM.OPEN", version, TOKEN), "version 2", counted="version")


@TRANSPORTS
@pytest.mark.parametrize("token", ["", TOKEN[:-1], TOKEN + "0", TOKEN[:-1] + "g", TOKEN[:-1] + " ", "0x" + TOKEN[2:], b"\0" * 32,
                                   b"\xff" * 32, "f" * 100000], ids=lambda t: str(len(t)))
def test_a_token_that_is_not_32_hexadecimal_digits_is_refused(server, unix, token):
    refused(server, unix, ("SHM.OPEN", "2", token), "32 hexadecimal digits", counted="token")


def test_a_token_in_capitals_is_a_token(server):
    with Wire(server) as w:
        w.open(token=TOKEN.upper())
        w.token = TOKEN
        assert w.confirm().command("PING") == b"PONG"


@TRANSPORTS
@pytest.mark.parametrize("name", ["", "other-name", "Redis-shm-x", "redis-shm-", "redis-shm-" + "x" * 55, "x" * 100000,
                                  "/tmp/redis-shm-x", b"\0redis-shm-x"], ids=lambda n: str(n[:12]))
def test_a_rendezvous_without_the_prefix_or_too_long_is_refused(server, unix, name):
    refused(server, unix, ("SHM.OPEN", "2", TOKEN, name), "rendezvous", "redis-shm-", "64 bytes", counted="rendezvous")


def test_a_rendezvous_of_64_bytes_is_served(server):
    with Wire(server, unix=False) as w:
        w.rendezvous = Rendezvous("redis-shm-" + new_token() + "x" * 22)
        assert len(w.rendezvous.name) == 64
        assert w.open(rendezvous=w.rendezvous.name) == 1
        assert w.confirm().command("PING") == b"PONG"


@TRANSPORTS
def test_a_rendezvous_where_nobody_listens_is_refused(server, unix):
    refused(server, unix, ("SHM.OPEN", "2", TOKEN, "redis-shm-nobody-" + new_token()[:8]), "nobody listens", "use the unix socket",
            counted="not_this_host")


def test_a_tcp_connection_without_a_rendezvous_is_refused(server):
    refused(server, False, ("SHM.OPEN", "2", TOKEN), "needs a rendezvous", counted="rendezvous")


def test_a_rendezvous_that_does_not_accept_never_blocks_the_server(server):
    r = Rendezvous(backlog=0)
    queue = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    try:
        for s in queue:
            s.setblocking(False)
            s.connect_ex("\0" + r.name)
        start = time.monotonic()
        refused(server, False, ("SHM.OPEN", "2", TOKEN, r.name), "could not be handed over", counted="system")
        assert time.monotonic() - start < 3
    finally:
        for s in queue + [r]:
            s.close()


def test_a_rendezvous_of_another_kind_of_socket_is_refused(server):
    r = Rendezvous(kind=socket.SOCK_DGRAM)
    refused(server, False, ("SHM.OPEN", "2", TOKEN, r.name), "nobody listens", counted="not_this_host")
    r.close()


@pytest.mark.parametrize("rest", [("MODE", "8"), ("MODE", "0689"), ("MODE", ""), ("MODE", "rw"), ("MODE", "-1"), ("MODE", "01000"),
                                  ("MODE", "000000"), ("MODE", "0x1"), ("MODUS", "0600"), ("0600", "MODE")], ids="-".join)
@TRANSPORTS
def test_a_mode_that_is_not_octal_is_refused(server, unix, rest):
    args = ("SHM.OPEN", "2", TOKEN) + (() if unix else ("redis-shm-x",)) + rest
    refused(server, unix, args, "MODE", "octal", counted="mode")


@pytest.mark.parametrize("args", [("SHM.OPEN", "2", TOKEN, "MODE"), ("SHM.OPEN", "2", TOKEN, "redis-shm-x", "MODE")], ids=len)
@TRANSPORTS
def test_a_missing_mode_is_refused(server, unix, args):
    refused(server, unix, args, "MODE" if len(args) == 5 else "rendezvous")


@TRANSPORTS
def test_inside_multi_it_is_refused_and_the_transaction_goes_on(server, unix):
    before = server.stats()["refused_context"]
    with Wire(server, unix=unix) as w:
        assert w.command("MULTI") == b"OK"
        assert w.command("SET", "in-multi", "1") == b"QUEUED"
        assert w.open() == b"QUEUED"
        assert w.command("GET", "in-multi") == b"QUEUED"
        first, error, last = w.command("EXEC")
        assert first == b"OK" and last == b"1"
        assert isinstance(error, ErrorReply) and "MULTI" in error and "alone" in error
        assert w.works() and not w.fds
        assert server.stats()["refused_context"] == before + 1
        w.rendezvous = None
        assert w.open_session().command("PING") == b"PONG"


@TRANSPORTS
def test_hiredis_inside_multi_gets_the_servers_reply_and_stays_plain(server, plain, unix):
    c = plain(server, unix=unix)
    assert c.command("MULTI") == b"OK"
    assert c.use_shared_memory() == b"QUEUED" and not c.is_shm()
    assert c.command("PING") == b"QUEUED"
    error, pong = c.command("EXEC")
    assert isinstance(error, ErrorReply) and pong == b"PONG"
    assert c.use_shared_memory() == 1 and c.is_shm()
    assert c.command("PING") == b"PONG"


@TRANSPORTS
def test_inside_a_script_it_is_refused(server, unix):
    with Wire(server, unix=unix) as w:
        error = w.command("EVAL", "return redis.call('SHM.OPEN', '2', ARGV[1])", "0", TOKEN)
        assert isinstance(error, ErrorReply) and "script" in error, error
        error = w.command("EVAL", "return redis.pcall('SHM.OPEN', '2', ARGV[1], 'redis-shm-x')", "0", TOKEN)
        assert isinstance(error, ErrorReply) and "script" in error, error
        assert w.works() and not w.fds
        assert w.open_session().command("EVAL", "return 7", "0") == 7


def test_inside_a_function_it_is_refused(server):
    with Wire(server) as w:
        code = "#!lua name=shmtest\nredis.register_function('shmopen', function(k, a) return redis.call('SHM.OPEN', '2', a[1]) end)"
        loaded = w.command("FUNCTION", "LOAD", "REPLACE", code)
        if isinstance(loaded, ErrorReply) and "unknown command" in loaded:
            pytest.skip("this server has no functions")
        assert loaded == b"shmtest"
        error = w.command("FCALL", "shmopen", "0", TOKEN)
        assert isinstance(error, ErrorReply) and "script" in error, error
        assert w.works() and not w.fds
        w.command("FUNCTION", "DELETE", "shmtest")
        assert w.open_session().command("PING") == b"PONG"


@TRANSPORTS
def test_called_by_another_module_it_is_refused(start_server, compiled, unix):
    server = start_server(args=["--loadmodule", compiled("modules/caller.c")])
    with Wire(server, unix=unix) as w:
        assert w.command("CALLER.CALL", "PING") == b"PONG"
        error = w.command("CALLER.CALL", "SHM.OPEN", "2", TOKEN)
        assert isinstance(error, ErrorReply) and "another module's call" in error, error
        assert w.works() and not w.fds
        assert server.stats()["refused_context"] == 1 and server.stats()["sessions"] == 0
        assert w.open_session().command("CALLER.CALL", "PING") == b"PONG"
        error = w.session.command("CALLER.CALL", "SHM.OPEN", "2", TOKEN)
        assert isinstance(error, ErrorReply) and w.session.command("PING") == b"PONG"


@TRANSPORTS
def test_a_second_open_on_one_connection_is_an_error_and_shared_memory_goes_on(server, shm, unix):
    c = shm(server, unix=unix)
    before = server.stats()
    reply = c.command("SHM.OPEN", "2", TOKEN)
    assert isinstance(reply, ErrorReply) and "already" in reply
    assert c.command("PING") == b"PONG" and c.is_shm()
    reply = c.use_shared_memory()
    assert isinstance(reply, ErrorReply) and "already" in reply
    assert c.command("SET", "second", "1") == b"OK" and c.command("GET", "second") == b"1" and c.is_shm()
    after = server.stats()
    assert after["sessions"] == before["sessions"] and after["refused_already_open"] >= before["refused_already_open"] + 1


@TRANSPORTS
@pytest.mark.parametrize("before", [0, 1, 20])
@pytest.mark.parametrize("after", [0, 1, 20])
def test_pipelined_with_other_commands_no_reply_is_lost_or_overtaken(server, unix, before, after):
    r = Rendezvous()
    with Wire(server, unix=unix) as w:
        data = b"".join(encode("ECHO", f"before{i}") for i in range(before))
        data += encode("SHM.OPEN", "2", TOKEN, *(() if unix else (r.name,)))
        data += b"".join(encode("ECHO", f"after{i}") for i in range(after))
        w.send_bytes(data)
        for i in range(before):
            assert w.reply() == f"before{i}".encode()
        reply = w.reply()
        if before or after:
            assert isinstance(reply, ErrorReply) and "alone" in reply, reply
        else:
            assert reply == 1
        for i in range(after):
            assert w.reply() == f"after{i}".encode()
        assert w.works()
    r.close()


def test_commands_that_arrive_before_the_confirmation_decline_and_are_answered(server):
    with Wire(server) as w:
        w.send("SHM.OPEN", "2", TOKEN)
        time.sleep(0.05)
        for i in range(20):
            w.send("ECHO", str(i))
        assert [w.reply() for _ in range(21)] == [1] + [str(i).encode() for i in range(20)]
        assert w.works()


def test_an_inline_open_with_a_command_behind_it_loses_no_reply(server):
    with Wire(server) as w:
        w.send_bytes(b"SHM.OPEN 2 " + TOKEN.encode() + b"\r\nPING\r\n")
        first = w.reply()
        assert first == 1 or isinstance(first, ErrorReply)
        w.send("ECHO", "x")
        assert w.reply() == b"PONG" and w.reply() == b"x"
        assert w.works()


def test_behind_a_reply_that_is_too_long_to_be_sent_at_once_it_is_refused(server):
    value = b"v" * (8 << 20)
    with Wire(server) as w:
        assert w.command("SET", "long", value) == b"OK"
        w.send("GET", "long")
        time.sleep(0.1)  # the reply fills the socket, the rest waits in the server
        w.send("SHM.OPEN", "2", TOKEN)
        assert w.reply() == value
        reply = w.reply()
        assert isinstance(reply, ErrorReply) and "alone" in reply
        assert w.command("DEL", "long") == 1 and w.works()


@TRANSPORTS
def test_hiredis_with_commands_queued_is_refused_and_their_replies_come_in_order(server, plain, unix):
    c = plain(server, unix=unix)
    c.append("ECHO", "1")
    reply = c.use_shared_memory()
    assert isinstance(reply, ErrorReply) and "replies first" in reply and not c.is_shm()
    assert c.get_reply() == b"1"
    assert c.use_shared_memory() == 1
    assert c.command("PING") == b"PONG"


@TRANSPORTS
def test_hiredis_with_commands_sent_but_unread_loses_no_reply(server, plain, unix):
    c = plain(server, unix=unix)
    for i in range(3):
        c.append("ECHO", str(i))
    assert c.buffer_write()
    first = c.use_shared_memory()
    replies = [c.get_reply() for _ in range(3)]
    if not isinstance(first, ErrorReply):  # no reply had come yet, so that it could not know
        replies.insert(0, first)
    assert replies[:3] == [b"0", b"1", b"2"]
    assert not c.is_shm()
    assert c.command("SET", "k", "v") == b"OK" and c.command("GET", "k") == b"v"
    assert c.use_shared_memory() == 1 and c.command("GET", "k") == b"v"


@TRANSPORTS
def test_a_nonblocking_hiredis_with_commands_queued_gets_every_reply_in_order(server, plain, unix):
    c = plain(server, unix=unix, nonblock=True)
    c.append("ECHO", "1")
    assert c.use_shared_memory() is None
    c.append("ECHO", "2")
    assert c.wait_reply() == b"1"
    assert isinstance(c.wait_reply(), ErrorReply)
    assert c.wait_reply() == b"2"
    assert not c.is_shm()
    c.append("PING")
    assert c.wait_reply() == b"PONG"


@TRANSPORTS
@pytest.mark.parametrize("flushed", [False, True], ids=["queued", "sent"])
@pytest.mark.parametrize("n", [1, 5, 2000])
def test_a_nonblocking_hiredis_may_queue_commands_before_the_opens_reply(server, plain, unix, flushed, n):
    c = plain(server, unix=unix, nonblock=True)
    assert c.use_shared_memory() is None
    if flushed:
        assert c.buffer_write()
        time.sleep(0.05)  # the server has answered
    texts = [b"%d" % i * 20 for i in range(n)]
    for text in texts:
        c.append("ECHO", text)
    assert eventually(c.buffer_write)
    time.sleep(0.02)
    reply = c.wait_reply()
    assert isinstance(reply, ErrorReply) and ("alone" in reply or "before its reply" in reply) and not c.is_shm()
    assert [c.wait_reply() for _ in texts] == texts
    assert c.use_shared_memory() is None and c.wait_reply() == 1
    c.append("PING")
    assert c.wait_reply() == b"PONG" and c.is_shm()


def test_a_nonblocking_second_open_comes_in_its_turn_among_the_replies(server, plain):
    c = plain(server, nonblock=True)
    assert c.use_shared_memory() is None and c.wait_reply() == 1
    value = b"x" * 300000  # several reads of the reader
    c.append("SET", "big", value)
    assert c.wait_reply() == b"OK"
    c.append("GET", "big")
    while not c.buffer_write():
        pass
    time.sleep(0.05)
    c.buffer_read()  # a part of the reply is in the reader
    assert c.use_shared_memory() is None
    assert c.wait_reply() == value
    reply = c.wait_reply()
    assert isinstance(reply, ErrorReply) and "already" in reply
    c.append("PING")
    assert c.wait_reply() == b"PONG" and c.is_shm()


@pytest.fixture
def certificate(tmp_path):
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    try:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
                        "-subj", "/CN=localhost"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return key, cert


def test_a_tls_connection_is_refused_and_goes_on_encrypted(start_server, certificate):
    key, cert = certificate
    port = free_port()
    try:
        server = start_server(args=["--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert,
                                    "--tls-auth-clients", "no"])
    except RuntimeError as e:
        if "tls" in str(e).lower():
            pytest.skip("this server has no TLS")
        raise
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with Wire(server, sock=context.wrap_socket(socket.create_connection(("127.0.0.1", port)))) as w:
        for args in ((), ("redis-shm-x",)):
            reply = w.command("SHM.OPEN", "2", TOKEN, *args)
            assert isinstance(reply, ErrorReply) and "TLS" in reply and "plain port" in reply, reply
            assert w.works()
        assert server.stats()["refused_tls"] == 2
    with Wire(server, unix=False) as w:
        assert w.open_session().command("PING") == b"PONG"


@pytest.mark.parametrize("module_args, counted, setting",
                         [(["max-sessions", "2"], "max_sessions", "shm.max-sessions"),
                          (["max-memory", "300kb"], "max_memory", "shm.max-memory")], ids=["sessions", "memory"])
@TRANSPORTS
def test_at_a_limit_it_is_refused_and_usable_again_after_a_client_leaves(start_server, plain, unix, module_args, counted, setting):
    server = start_server(module_args=module_args)  # 300 kB: two sessions of 64 KiB each way and their headers
    clients = [plain(server, unix=unix) for _ in range(3)]
    assert [c.use_shared_memory() for c in clients[:2]] == [1, 1]
    reply = clients[2].use_shared_memory()
    assert isinstance(reply, ErrorReply) and setting in reply and not clients[2].is_shm()
    assert clients[2].command("SET", "k", "v") == b"OK" and clients[2].command("GET", "k") == b"v"
    assert server.stats()["refused_" + counted] == 1 and server.stats()["sessions"] == 2
    clients[0].free()
    assert eventually(lambda: server.stats()["sessions"] == 1)
    assert clients[2].use_shared_memory() == 1
    assert clients[2].command("GET", "k") == b"v" and clients[1].command("GET", "k") == b"v"


def test_a_limit_of_0_refuses_every_session(start_server, plain):
    server = start_server(module_args=["max-sessions", "0"])
    c = plain(server)
    assert "max-sessions" in c.use_shared_memory()
    assert c.command("PING") == b"PONG"


@TRANSPORTS
def test_a_server_without_the_module_gives_its_own_error_and_the_connection_goes_on(start_server, plain, unix):
    server = start_server(module=False)
    c = plain(server, unix=unix)
    reply = c.use_shared_memory()
    assert isinstance(reply, ErrorReply) and "unknown command" in reply and not c.is_shm()
    assert c.command("SET", "k", "v") == b"OK" and c.command("GET", "k") == b"v"
    assert isinstance(c.use_shared_memory(0o600), ErrorReply) and c.command("GET", "k") == b"v"
    n = plain(server, unix=unix, nonblock=True)
    assert n.use_shared_memory() is None
    assert "unknown command" in n.wait_reply() and not n.is_shm()
    n.append("GET", "k")
    assert n.wait_reply() == b"v"


@TRANSPORTS
def test_a_client_denied_by_acl_gets_noperm(start_server, plain, unix):
    server = start_server()
    r = server.client()
    assert r.execute_command("ACL", "SETUSER", "bob", "on", ">secret", "~*", "&*", "+@all", "-shm.open")
    c = plain(server, unix=unix)
    assert c.command("AUTH", "bob", "secret") == b"OK"
    reply = c.use_shared_memory()
    assert isinstance(reply, ErrorReply) and reply.startswith("NOPERM") and not c.is_shm()
    assert c.command("SET", "k", "v") == b"OK" and c.command("GET", "k") == b"v"
    r.execute_command("ACL", "SETUSER", "bob", "+shm.open")
    assert c.use_shared_memory() == 1 and c.command("ACL", "WHOAMI") == b"bob"


def test_a_client_that_is_not_authenticated_gets_noauth(start_server, plain):
    server = start_server(args=["--requirepass", "secret"], wait=False)
    assert eventually(lambda: "ready to accept connections" in server.log().lower())
    c = plain(server)
    reply = c.use_shared_memory()
    assert isinstance(reply, ErrorReply) and reply.startswith("NOAUTH")
    assert c.command("AUTH", "secret") == b"OK"
    assert c.use_shared_memory() == 1 and c.command("PING") == b"PONG"


def test_a_subscriber_in_resp2_is_refused_by_the_server_and_goes_on(server):
    with Wire(server) as w:
        assert w.command("SUBSCRIBE", "bad-input") == [b"subscribe", b"bad-input", 1]
        assert isinstance(w.command("SHM.OPEN", "2", TOKEN), ErrorReply)
        assert server.client().publish("bad-input", "hello") == 1
        assert w.reply() == [b"message", b"bad-input", b"hello"]
        assert w.command("UNSUBSCRIBE") == [b"unsubscribe", b"bad-input", 0]
        assert w.works()


def test_random_arguments_never_open_a_session_nor_harm_the_connection(server):
    import random
    rng = random.Random(2)
    with Wire(server) as w:
        for _ in range(300):
            args = [rng.choice([b"2", b"1", b"", b"MODE", b"0600", b"999", TOKEN.encode(), TOKEN[:31].encode() + b"x", b"redis-shm-",
                                b"redis-shm-zz", bytes(rng.randrange(256) for _ in range(rng.randrange(80)))])
                    for _ in range(rng.randrange(7))]
            if len(args) >= 2 and args[0] == b"2" and args[1] == TOKEN.encode():
                args[0] = b"3"
            assert isinstance(w.command("SHM.OPEN", *args), ErrorReply)
        assert w.works() and not w.fds
