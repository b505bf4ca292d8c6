"""The servers and the summary are those of tests/server."""
import importlib.util
import pathlib
import sys

SERVER_TESTS = pathlib.Path(__file__).resolve().parents[1] / "server"
sys.path.insert(0, str(SERVER_TESTS))
_spec = importlib.util.spec_from_file_location("server_conftest", SERVER_TESTS / "conftest.py")
_server_conftest = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_server_conftest)
start_server = _server_conftest.start_server
pytest_runtest_makereport = _server_conftest.pytest_runtest_makereport
pytest_terminal_summary = _server_conftest.pytest_terminal_summary
