"""redis-shm run: its options, its exit status, what it says, and what it leaves alone."""
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

import run_program
from redis_server import BUILD, free_port
from run_program import run, used
from tool import TOOL, fails, finish, tool
LIBRARY = BUILD / "libredis_shm_preload.so"


@pytest.fixture
def plain_server(start_server):
    return start_server(module=False)




def test_a_command_runs_in_shared_memory_over_both_endpoints(server):
    for where in (["-s", server.path], ["-p", server.port]):
        done = used(server, run(server, "redis-cli", *where, "ping"))
        assert done.stdout == "PONG\n" and done.upgraded == 1


def test_the_exit_status_is_the_commands(server):
    for options in ([], ["--stats"]):
        assert run(server, "sh", "-c", "exit 7", options=options).returncode == 7
        assert run(server, "sh", "-c", "kill -TERM $$", options=options).returncode == -signal.SIGTERM
        done = run(server, "/nonexistent/program", options=options)
        assert done.returncode == 127 and "/nonexistent/program" in done.stderr and len(done.stderr.splitlines()) == 1
        done = run(server, str(TOOL.parent), options=options)
        assert done.returncode == 126


def test_arguments_of_the_command_are_its_own(server):
    done = subprocess.run([TOOL, "run", "echo", "--stats", "--mode", "x"], capture_output=True, text=True, timeout=30)
    assert done.stdout == "--stats --mode x\n" and done.returncode == 0 and done.stderr == ""


@pytest.mark.parametrize("arguments, words", [
    ([], ["no command"]), (["--mode", "fast", "true"], ["--mode", "fast"]), (["--endpoint", "nonsense", "true"], ["--endpoint", "nonsense"]),
    (["--endpoint", "127.0.0.1:0", "true"], ["127.0.0.1:0"]), (["--endpoint", "127.0.0.1:9-8", "true"], ["127.0.0.1:9-8"]),
    (["--endpoint", "127.0.0.1:70000", "true"], ["70000"]), (["--endpoint", "/" + 108 * "x", "true"], ["path"]),
    (["--endpoint", "127.0.0.1:1,127.0.0.1:2", "true"], ["--endpoint"])])
def test_wrong_usage_is_told_in_one_line(arguments, words):
    fails(tool("run", *arguments), *words, code=2)


def test_a_library_that_is_not_there_is_told(tmp_path):
    fails(tool("run", "--library", tmp_path / "none.so", "true"), "none.so", code=1)


def test_stats_say_why_a_connection_was_not_upgraded(plain_server):
    done = run(plain_server, "redis-cli", "-s", plain_server.path, "ping", options=["--stats"])
    assert done.stdout == "PONG\n" and done.returncode == 0 and done.upgraded == 0 and done.refused == 1
    assert "1 not: the server does not have the module" in done.stderr


def test_required_shared_memory_that_is_not_to_be_had_fails_the_connect(plain_server):
    for where in (["-s", plain_server.path], ["-p", plain_server.port]):
        done = run(plain_server, "redis-cli", *where, "ping")
        assert done.returncode != 0 and "PONG" not in done.stdout
        assert "no shared memory: the server does not have the module" in done.stderr and "refused" in done.stderr.lower()


def test_stats_without_a_connection_say_so(server):
    assert "no connection was made to an endpoint" in run(server, "true").stderr


def test_a_port_range_and_a_name_are_endpoints(server):
    for endpoint in (f"127.0.0.1:{server.port - 1}-{server.port + 1}", f"localhost:{server.port}"):
        used(server, run(server, "redis-cli", "-p", server.port, "ping", endpoints=[endpoint]))


def test_another_path_to_the_same_socket_is_the_endpoint(server, tmp_path):
    (tmp_path / "link").symlink_to(server.path)
    used(server, run(server, "redis-cli", "-s", tmp_path / "link", "ping", endpoints=[server.path]))
    used(server, run(server, "redis-cli", "-s", os.path.basename(server.path), "ping", endpoints=[server.path], cwd=server.dir))


def test_an_endpoint_that_was_not_named_gets_the_programs_bytes_only():
    got = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve():
            s, _ = listener.accept()
            with s:
                got.append(s.recv(1000))
                s.sendall(b"+PONG\r\n")
        thread = threading.Thread(target=serve)
        thread.start()
        done = subprocess.run([TOOL, "run", "--require", "--endpoint", f"127.0.0.1:{free_port()}", "--", "redis-cli", "-p",
                               str(listener.getsockname()[1]), "ping"], capture_output=True, text=True, timeout=30)
        thread.join(20)
    assert done.stdout == "PONG\n" and got == [b"*1\r\n$4\r\nping\r\n"] and done.stderr == ""


def test_what_is_no_redis_server_gets_its_client_back():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve():
            s, _ = listener.accept()
            with s:
                s.recv(1000)
                s.sendall(b"220 smtp.example ready\r\n")
                time.sleep(0.2)
        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        program = f"import socket; s = socket.create_connection(('127.0.0.1', {port})); print(s.recv(100))"
        done = subprocess.run([TOOL, "run", "--stats", "--endpoint", f"127.0.0.1:{port}", "--", "/usr/bin/python3", "-c", program],
                              capture_output=True, text=True, timeout=30)
        thread.join(20)
    assert done.stdout == "b'220 smtp.example ready\\r\\n'\n" and "something else than a Redis server" in done.stderr


def test_a_server_that_is_full_says_so_to_the_program(start_server):
    server = start_server(args=["--maxclients", "1"])
    held = server.client()
    held.ping()
    program = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect('{server.path}'); print(s.recv(100), s.recv(100))"
    done = run(server, "/usr/bin/python3", "-c", program, options=["--stats"])
    assert done.stdout == "b'-ERR max number of clients reached\\r\\n' b''\n" and done.upgraded == 0 and done.refused == 1


def test_a_static_program_is_noticed(tmp_path, server):
    source, program = tmp_path / "static.c", tmp_path / "static"
    source.write_text("int main(void) { return 0; }\n")
    if subprocess.run([os.environ.get("CC", "cc"), "-static", "-o", program, source], capture_output=True).returncode != 0:
        pytest.skip("no static libc")
    done = run(server, program, options=[])
    assert done.returncode == 0 and "static" in done.stderr and len(done.stderr.splitlines()) == 1
    fails(run(server, program, options=["--require"]), "static", code=1)


def test_a_library_that_was_never_loaded_is_noticed(server):
    """With another library in its place, as the loader leaves it out for a program with more privileges."""
    done = run(server, "/bin/true", options=["--stats", "--library", BUILD / "module-shm.so"])
    assert done.returncode == 0 and "never loaded into /bin/true" in done.stderr
    done = run(server, "/bin/true", options=["--require", "--library", BUILD / "module-shm.so"])
    assert done.returncode == 1 and "never loaded into /bin/true" in done.stderr


def test_a_signal_for_the_tool_reaches_the_command(server):
    process = subprocess.Popen(run_program.argv(server, "sh", "-c", "trap 'echo term; exit 3' TERM; echo up; while :; do sleep 0.05; done"),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    done = finish(process, signal.SIGTERM)
    assert done.stdout == "term\n" and done.returncode == 3


def test_a_process_without_a_matching_connection_does_nothing_at_start(tmp_path):
    """No descriptor, no thread, no output, and no system call of its own but those that load it."""
    program = "import os, threading; print(sorted(os.listdir('/proc/self/fd')), len(os.listdir('/proc/self/task')))"
    plain = subprocess.run(["/usr/bin/python3", "-c", program], capture_output=True, text=True, timeout=30)
    done = subprocess.run([TOOL, "run", "--", "/usr/bin/python3", "-c", program], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and done.stdout == plain.stdout and done.stderr == ""


def test_the_library_exports_functions_of_libc_only():
    out = subprocess.run(["nm", "-D", "--defined-only", LIBRARY], capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1].split("@")[0] for line in out.splitlines()}
    libc = subprocess.run(["nm", "-D", "--defined-only", next(line.split()[2] for line in subprocess.run(
        ["ldd", LIBRARY], capture_output=True, text=True, check=True).stdout.splitlines() if "libc.so" in line)],
        capture_output=True, text=True, check=True).stdout
    known = {line.split()[-1].split("@")[0] for line in libc.splitlines()} | {"epoll_pwait2", "close_range", "closefrom"}
    assert len(names) > 40 and names <= known, names - known
