"""Clients in another network namespace: over TCP they are refused and go on; through the Unix socket they are served."""
import json
import os
import subprocess
import sys

import pytest

CLIENT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from shm_client import Hiredis
c = Hiredis(path=sys.argv[2]) if len(sys.argv) == 3 else Hiredis(host=sys.argv[2], port=int(sys.argv[3]))
opened = c.use_shared_memory()
print(json.dumps([opened, c.is_shm(), c.command("SET", "ns", "1").decode(), c.command("GET", "ns").decode()]))
"""


def run(*argv):
    return subprocess.run([str(a) for a in argv], check=True, capture_output=True, text=True, timeout=30).stdout


def inside(name):
    return "nsenter", f"--net=/run/netns/{name}"  # ip netns exec mounts as well, which a chroot does not allow


@pytest.fixture
def namespace():
    """(name, the host's address as seen from inside), joined to us by a veth pair."""
    name = f"rshm-{os.getpid()}"
    ours, theirs = f"rshmA{os.getpid() % 100000}", f"rshmB{os.getpid() % 100000}"
    address = f"10.213.{os.getpid() % 250}."
    if os.geteuid() != 0:
        pytest.skip("only root makes network namespaces")
    try:
        run("ip", "netns", "add", name)
    except (FileNotFoundError, subprocess.CalledProcessError) as e:
        pytest.skip(f"no network namespace can be made here: {e}")
    try:
        try:
            run("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        except subprocess.CalledProcessError as e:
            pytest.skip(f"no veth pair can be made here: {e.stderr.strip()}")
        run("ip", "addr", "add", address + "1/24", "dev", ours)
        run("ip", "link", "set", ours, "up")
        run(*inside(name), "ip", "addr", "add", address + "2/24", "dev", theirs)
        run(*inside(name), "ip", "link", "set", theirs, "up")
        run(*inside(name), "ip", "link", "set", "lo", "up")
        yield name, address + "1"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)
        subprocess.run(["ip", "link", "del", ours], capture_output=True)


def client_in(name, *arguments):
    return json.loads(run(*inside(name), sys.executable, "-c", CLIENT, os.path.dirname(__file__), *arguments))


def test_a_tcp_client_in_another_network_namespace_is_refused_and_goes_on(start_server, namespace):
    name, address = namespace
    server = start_server(args=["--bind", "127.0.0.1", address, "--protected-mode", "no"])
    opened, is_shm, stored, value = client_in(name, address, server.port)
    assert "another network namespace" in opened and "Unix socket" in opened
    assert not is_shm and stored == "OK" and value == "1"
    assert server.stats()["refused_not_this_host"] == 1


def test_a_unix_socket_client_in_another_network_namespace_is_served(start_server, namespace):
    server = start_server()
    opened, is_shm, stored, value = client_in(namespace[0], server.path)
    assert opened == 1 and is_shm and stored == "OK" and value == "1"


def test_a_tcp_client_on_this_hosts_outer_address_is_served(start_server, namespace, shm, plain):
    from shm_client import Hiredis
    server = start_server(args=["--bind", "127.0.0.1", namespace[1], "--protected-mode", "no"])
    with Hiredis(host=namespace[1], port=server.port) as c:
        assert c.use_shared_memory() == 1
        assert c.command("SET", "k", "v") == b"OK" and c.command("GET", "k") == b"v"
