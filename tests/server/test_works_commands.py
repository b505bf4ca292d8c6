"""What works over shared memory: every data type's commands, transactions, scripts, databases, users, RESP3 and tracking.

Most tests ask a shared-memory connection and a plain one the same, each in a database of its own, and want the same replies.
"""
import time

import pytest

from redis_server import VERSION
from shm_client import ErrorReply, Push

TRANSPORTS = pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])

TYPES = {
    "strings": """
        SET k v | GET k | GETSET k w | SETNX k x | SETEX e 100 v | PSETEX e 100000 v | MSET a 1 b 2 c 3 | MGET a b nope c
        MSETNX a 1 z 2 | INCR a | INCRBY a 41 | DECR a | DECRBY a 2 | INCRBYFLOAT a 0.5 | APPEND k more | STRLEN k
        GETRANGE k 1 3 | SETRANGE k 10 far | GET k | GETDEL k | GETEX b EX 100 | SET s v NX GET | SET s w XX KEEPTTL | LCS a b | TYPE a
        EXISTS a b nope | RENAME a aa | COPY aa bb | TOUCH aa bb | OBJECT ENCODING aa | DUMP nope | PERSIST e | TTL e | DEL aa bb | UNLINK b
        KEYS * | DBSIZE | RANDOMKEY | SET k 5 | INCR nope2 | INCR s | EXPIRE k 0 | GET k | GET s extra | NOSUCHCOMMAND x""",
    "hashes": """
        HSET h a 1 b 2 c 3 | HGET h a | HGET h nope | HMGET h a nope c | HGETALL h | HKEYS h | HVALS h | HLEN h | HEXISTS h a | HDEL h a
        HINCRBY h b 10 | HINCRBYFLOAT h b 1.5 | HSETNX h b 1 | HSETNX h d 1 | HSTRLEN h b | HMSET h x 1 | HRANDFIELD h 0 | HSCAN h 0
        OBJECT ENCODING h | GET h | HGET h""",
    "lists": """
        RPUSH l a b c d | LPUSH l z | LRANGE l 0 -1 | LLEN l | LINDEX l 1 | LSET l 1 A | LINSERT l BEFORE A before | LREM l 1 b | LPOS l c
        LTRIM l 0 3 | LPOP l | RPOP l | LPOP l 2 | RPUSH l 1 2 3 4 | RPOPLPUSH l m | LMOVE l m LEFT RIGHT | LRANGE m 0 -1 | LMPOP 2 l m LEFT COUNT 2
        LPUSHX nope v | RPUSH l v w | RPUSHX l x | RPUSH m 9 | BLPOP l 1 | BRPOP m 1 | BLPOP nope 0.01 | BLMOVE l m LEFT RIGHT 0.01 | SORT m DESC | LSET l 99 x""",
    "sets": """
        SADD s a b c d | SADD s a e | SCARD s | SISMEMBER s a | SMISMEMBER s a nope | SREM s e | SADD t c d f | SINTERSTORE i s t | SCARD i
        SUNIONSTORE u s t | SCARD u | SDIFFSTORE d s t | SCARD d | SMOVE s t a | SINTERCARD 2 s t | SPOP nope | SRANDMEMBER nope 3
        SADD one x | SPOP one | SADD ints 3 1 2 | SMEMBERS ints | SORT ints | SSCAN ints 0""",
    "zsets": """
        ZADD z 1 a 2 b 3 c 4 d | ZADD z XX CH 5 a | ZADD z INCR 2 b | ZSCORE z a | ZMSCORE z a nope | ZCARD z | ZCOUNT z (2 5 | ZRANK z d | ZREVRANK z d
        ZRANGE z 0 -1 WITHSCORES | ZRANGE z (1 +inf BYSCORE LIMIT 1 2 | ZREVRANGE z 0 1 | ZRANGEBYSCORE z -inf +inf | ZADD y 1 a 1 b 1 c
        ZRANGEBYLEX y [a (c | ZLEXCOUNT y - + | ZINTERSTORE w 2 z y WEIGHTS 2 1 | ZRANGE w 0 -1 WITHSCORES | ZUNION 2 z y WITHSCORES | ZDIFF 2 z y
        ZINCRBY z 1.5 c | ZPOPMIN z | ZPOPMAX z 2 | BZPOPMIN z 1 | BZPOPMIN nope 0.01 | ZREM y a | ZREMRANGEBYRANK y 0 0 | ZRANGESTORE v y 0 -1
        ZSCAN y 0 | ZADD z nan x""",
    "streams": """
        XADD x 1-1 f v | XADD x 1-2 f w g h | XADD x 1-1 f v | XLEN x | XRANGE x - + | XREVRANGE x + - COUNT 1 | XREAD COUNT 5 STREAMS x 0
        XGROUP CREATE x g 0 | XREADGROUP GROUP g me COUNT 1 STREAMS x > | XPENDING x g | XACK x g 1-1 | XADD x 2-1 a b | XREADGROUP GROUP g me STREAMS x >
        XAUTOCLAIM x g you 0 0 JUSTID | XGROUP CREATECONSUMER x g c | XDEL x 1-2 | XTRIM x MAXLEN 1 | XSETID x 5-1 | XREAD BLOCK 10 STREAMS x $
        XGROUP DESTROY x g""",
    "geo": """
        GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania | GEODIST g Palermo Catania km | GEOHASH g Palermo | GEOPOS g Palermo nope
        GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHCOORD WITHDIST | GEOSEARCHSTORE h g FROMMEMBER Palermo BYBOX 400 400 km | ZCARD h
        GEOADD g 999 0 nowhere""",
    "bitmaps": """
        SETBIT b 7 1 | SETBIT b 100 1 | GETBIT b 7 | GETBIT b 8 | BITCOUNT b | BITCOUNT b 0 0 | BITPOS b 1 | BITPOS b 0 | SET c \\xff
        BITOP AND d b c | BITOP NOT e b | GET e | BITFIELD f SET u8 0 255 INCRBY u8 0 10 GET u4 0 | BITFIELD_RO f GET u8 0 | SETBIT b -1 1""",
    "hyperloglog": """
        PFADD p a b c d e | PFADD p a | PFCOUNT p | PFADD q e f g | PFMERGE r p q | PFCOUNT r | PFCOUNT p q | SET s x | PFADD s y""",
    "scan": """
        MSET k1 1 k2 2 k3 3 | SADD set 1 2 3 | SCAN 0 COUNT 100 TYPE set | SCAN 0 MATCH k1 COUNT 1000 | SCAN nonsense""",
}
OLDER_THAN_7 = {"LCS", "LMPOP", "SINTERCARD"}


@TRANSPORTS
@pytest.mark.parametrize("kind", TYPES)
def test_commands_reply_as_over_a_plain_socket(server, shm, plain, kind, unix):
    a, b = shm(server, unix), plain(server, unix)
    for c, database in ((a, 8), (b, 9)):
        assert c.command("SELECT", database) == b"OK"
        assert c.command("FLUSHDB") == b"OK"
    compared = 0
    for line in TYPES[kind].splitlines():
        for command in filter(None, (part.split() for part in line.split("|"))):
            if VERSION < (7, 0, 0) and command[0] in OLDER_THAN_7:
                continue
            over_shm, over_socket = a.command(*command), b.command(*command)
            if command[0] in ("KEYS",):
                over_shm, over_socket = sorted(over_shm), sorted(over_socket)
            if command[0] == "RANDOMKEY":
                continue
            assert over_shm == over_socket and type(over_shm) is type(over_socket), command
            compared += 1
    assert compared > 4
    assert a.command("FLUSHDB") == b.command("FLUSHDB") == b"OK"


def test_bytes_of_every_value_pass(server, shm, plain):
    c, p = shm(server), plain(server)
    every = bytes(range(256)) * 3
    assert c.command("HSET", every, every, b"") == 1
    assert c.command("HGETALL", every) == p.command("HGETALL", every) == [every, b""]


@TRANSPORTS
def test_a_scan_of_many_keys_is_complete(server, shm, unix):
    c = shm(server, unix)
    c.command("SELECT", 10)
    c.command("FLUSHDB")
    names = {b"key:%06d" % i for i in range(3000)}
    for name in names:
        c.append("SET", name, name)
    assert all(c.get_reply() == b"OK" for _ in names)
    seen, cursor = set(), b"0"
    while True:
        cursor, batch = c.command("SCAN", cursor, "COUNT", 700)
        seen.update(batch)
        if cursor == b"0":
            break
    assert seen == names
    c.command("FLUSHDB")


def test_multi_exec_watch(server, shm, plain):
    c, p = shm(server), plain(server)
    c.command("DEL", "tx", "w")
    assert c.command("MULTI") == b"OK"
    assert [c.command("INCR", "tx") for _ in range(3)] == [b"QUEUED"] * 3
    assert p.command("GET", "tx") is None
    assert c.command("EXEC") == [1, 2, 3]
    assert c.command("WATCH", "w") == b"OK"
    p.command("SET", "w", "meddled")
    c.command("MULTI")
    c.command("SET", "w", "mine")
    assert c.command("EXEC") is None
    assert c.command("GET", "w") == b"meddled"
    c.command("WATCH", "w")
    c.command("UNWATCH")
    p.command("SET", "w", "again")
    c.command("MULTI")
    c.command("GET", "w")
    assert c.command("EXEC") == [b"again"]
    c.command("MULTI")
    assert isinstance(c.command("NOSUCHCOMMAND"), ErrorReply)
    assert c.command("EXEC").startswith("EXECABORT")
    c.command("MULTI")
    assert c.command("DISCARD") == b"OK"
    assert c.command("EXEC").startswith("ERR EXEC without MULTI")


def test_a_transaction_larger_than_the_ring(server, shm):
    c = shm(server)
    value = b"v" * 10000
    c.append("MULTI")
    for i in range(100):
        c.append("SET", f"big{i}", value)
        c.append("GET", f"big{i}")
    c.append("EXEC")
    assert c.get_reply() == b"OK"
    assert all(c.get_reply() == b"QUEUED" for _ in range(200))
    assert c.get_reply() == [b"OK", value] * 100
    assert c.command("DEL", *[f"big{i}" for i in range(100)]) == 100


def test_scripts_and_functions(server, shm):
    c = shm(server)
    assert c.command("EVAL", "return {KEYS[1], ARGV[1], 3, redis.call('SET', KEYS[1], ARGV[1])}", 1, "sk", "sv") == [b"sk", b"sv", 3, b"OK"]
    sha = c.command("SCRIPT", "LOAD", "return redis.call('GET', KEYS[1])")
    assert c.command("EVALSHA", sha, 1, "sk") == b"sv"
    assert c.command("EVALSHA", "0" * 40, 0).startswith("NOSCRIPT")
    assert c.command("EVAL", "return string.rep('x', 300000)", 0) == b"x" * 300000
    assert c.command("EVAL", "return redis.error_reply('mine')", 0) == "mine" or VERSION >= (7, 0, 0)
    assert isinstance(c.command("EVAL", "return nonsense(", 0), ErrorReply)
    if VERSION >= (7, 0, 0):
        code = "#!lua name=shmlib\nredis.register_function('shmf', function(keys, args) return args[1] end)"
        assert c.command("FUNCTION", "LOAD", "REPLACE", code) == b"shmlib"
        assert c.command("FCALL", "shmf", 0, "arg") == b"arg"
        assert c.command("FUNCTION", "DELETE", "shmlib") == b"OK"


def test_select_and_swapdb(server, shm, plain):
    c, p = shm(server), plain(server)
    for database in (11, 12):
        assert c.command("SELECT", database) == b"OK"
        assert c.command("SET", "where", database) == b"OK"
    p.command("SELECT", 11)
    assert p.command("GET", "where") == b"11"
    assert c.command("SWAPDB", 11, 12) == b"OK"
    assert c.command("GET", "where") == b"11"
    assert isinstance(c.command("SELECT", 99999), ErrorReply)
    assert c.command("GET", "where") == b"11"
    assert c.command("MOVE", "where", 13) == 1
    for database in (11, 12, 13):
        c.command("SELECT", database)
        c.command("FLUSHDB")


# ---- who is who ----

def test_auth_and_acl_users(server, shm, plain):
    c, admin = shm(server), plain(server)
    assert c.command("ACL", "WHOAMI") == b"default"
    assert admin.command("ACL", "SETUSER", "alice", "on", ">secret", "~a:*", "+@all", "-shm.open", "&a:*") == b"OK"
    assert c.command("AUTH", "alice", "wrong").startswith("WRONGPASS")
    assert c.command("ACL", "WHOAMI") == b"default"
    assert c.command("AUTH", "alice", "secret") == b"OK"
    assert c.command("ACL", "WHOAMI") == b"alice"
    assert c.command("SET", "a:1", "mine") == b"OK"
    assert c.command("SET", "b:1", "mine").startswith("NOPERM")
    assert c.command("GET", "a:1") == b"mine"
    assert b"user=alice" in admin.command("CLIENT", "LIST", "ID", c.command("CLIENT", "ID"))
    assert admin.command("ACL", "SETUSER", "alice", "-get") == b"OK"  # takes effect on the open connection
    assert c.command("GET", "a:1").startswith("NOPERM")
    assert admin.command("ACL", "DELUSER", "alice") == 1  # and this ends it
    with pytest.raises(Exception):
        c.command("PING")


def test_who_may_not_open_is_told_and_who_authenticates_may(server, plain):
    admin = plain(server)
    admin.command("ACL", "SETUSER", "bob", "on", ">secret", "~*", "+@all", "-shm.open")
    c = plain(server)
    assert c.command("AUTH", "bob", "secret") == b"OK"
    assert c.use_shared_memory().startswith("NOPERM")
    assert not c.is_shm() and c.command("PING") == b"PONG"
    try:
        admin.command("CONFIG", "SET", "requirepass", "sesame")
        c = plain(server)
        assert c.use_shared_memory().startswith("NOAUTH")
        assert c.command("AUTH", "sesame") == b"OK"
        assert c.use_shared_memory() == 1
        assert c.command("PING") == b"PONG"
    finally:
        admin.command("CONFIG", "SET", "requirepass", "")
        admin.command("ACL", "DELUSER", "bob")


# ---- RESP3 ----

@TRANSPORTS
def test_hello_3_and_its_types(server, shm, unix):
    c = shm(server, unix)
    hello = c.command("HELLO", 3)
    assert hello[b"proto"] == 3 and hello[b"id"] == c.command("CLIENT", "ID")
    c.command("DEL", "h3", "z3")
    c.command("HSET", "h3", "f", "v")
    assert c.command("HGETALL", "h3") == {b"f": b"v"}
    c.command("ZADD", "z3", 1.5, "m")
    assert c.command("ZSCORE", "z3", "m") == 1.5
    assert c.command("SMEMBERS", "no-such-set") == set()
    assert c.command("GET", "no-such-key") is None
    assert c.command("HELLO", 2)
    assert c.command("HGETALL", "h3") == [b"f", b"v"]


def invalidated(c, pushes, count):
    """Reads push messages with PINGs in between until there are so many."""
    end = time.monotonic() + 5
    while len(pushes) < count and time.monotonic() < end:
        assert c.command("PING") == b"PONG"
    return pushes


@TRANSPORTS
def test_client_tracking(server, shm, plain, unix):
    c, p = shm(server, unix), plain(server)
    pushes = []
    c.command("HELLO", 3)
    c.set_push_callback(pushes.append)
    assert c.command("CLIENT", "TRACKING", "ON") == b"OK"
    c.command("MGET", "t1", "t2")
    p.command("SET", "t1", 1)
    p.command("SET", "t2", 1)
    assert invalidated(c, pushes, 2) == [Push([b"invalidate", [b"t1"]]), Push([b"invalidate", [b"t2"]])]
    del pushes[:]
    assert c.command("CLIENT", "TRACKING", "OFF") == b"OK"
    assert c.command("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "b:", "NOLOOP") == b"OK"
    for i in range(5000):
        p.append("SET", b"b:%d" % i, i)
    assert all(p.get_reply() == b"OK" for _ in range(5000))
    end = time.monotonic() + 5
    while sum(len(m[1]) for m in pushes) < 5000 and time.monotonic() < end:
        c.command("PING")
    assert sorted(k for m in pushes for k in m[1]) == sorted(b"b:%d" % i for i in range(5000))
    p.command("DEL", *[b"b:%d" % i for i in range(5000)])


def test_client_tracking_redirected_from_and_to_shared_memory(server, shm, plain):
    listener, c, p = shm(server), shm(server), plain(server)
    there = listener.command("CLIENT", "ID")
    assert listener.command("SUBSCRIBE", "__redis__:invalidate")[0] == b"subscribe"
    assert c.command("CLIENT", "TRACKING", "ON", "REDIRECT", there) == b"OK"
    c.command("GET", "redirected")
    p.command("SET", "redirected", 1)
    assert listener.get_reply() == [b"message", b"__redis__:invalidate", [b"redirected"]]
