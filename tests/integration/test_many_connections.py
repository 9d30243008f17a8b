"""What thousands of idle connections cost, counted in processes of their own.

The descriptor limit of the machines that run this is 20 000, and each connection costs the relay,
and the data plane that passes TLS through, two: 8 000 by default, 10 000 with
``CLOISTER_CONNECTIONS=10000`` where the limit allows it.
"""

import contextlib
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest
from tests.support.application import wait_until

ROOT = pathlib.Path(__file__).parents[2]
CONNECTIONS = int(os.environ.get("CLOISTER_CONNECTIONS", "8000"))
SPARE = 512
"""Descriptors of the processes that are not connections: 256 of them the data plane keeps free."""
RELAY_KIB, PASSTHROUGH_KIB = 8, 12
"""What an idle connection may cost, in KiB of resident memory."""

PLANE = """
import sys
from cloister.dev import DataPlane
config = {"tls": {"termination": False}, "api_key_auth": False, "logs": {"trx_logging": False}}
with DataPlane(sys.argv[1], config=config, metrics_listen="127.0.0.1:0") as plane:
    print(plane.address, plane.metrics_address, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A process that is talked to by lines; killed at the end of the block."""
    running = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        yield running
    finally:
        running.send_signal(signal.SIGKILL)
        running.communicate()


def said(running: subprocess.Popen[str]) -> str:
    """The next line of a process."""
    assert running.stdout is not None
    line = running.stdout.readline()
    assert line, f"it ended: {running.args!r}"
    return line.strip()


def metric(address: str, name: str) -> int:
    """A value of ``/metrics``."""
    with urllib.request.urlopen(address, timeout=10) as page:  # noqa: S310 - loopback
        lines = page.read().decode().splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith(f"{name} "))
    return int(value)


def rss_kib(pid: int) -> int:
    """Resident memory, KiB."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1])


@pytest.fixture
def server() -> Iterator[str]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * CONNECTIONS + SPARE:
        pytest.skip(f"{CONNECTIONS} connections need {2 * CONNECTIONS + SPARE} descriptors")
    # The data plane takes the limit as it finds it.
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with process("-m", "tests.support.many_connections", "serve") as echo:
            yield said(echo)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def cost_of_each(pid: int, address: str, opened: tuple[str, str]) -> float:
    """KiB of resident memory for each of the connections, which all work before and after."""
    url, gauge = opened
    hold = ("-m", "tests.support.many_connections", "hold", address)
    with process(*hold, "50") as few:
        # What the first connections bring with them, buffers and code, is none of the others' cost.
        assert said(few) == "open"
        before = rss_kib(pid)
        with process(*hold, str(CONNECTIONS - 50)) as many:
            assert said(many) == "open"
            assert metric(url, gauge) == CONNECTIONS
            each = (rss_kib(pid) - before) / (CONNECTIONS - 50)
            assert many.stdin is not None
            many.stdin.write("\n")
            many.stdin.flush()
            assert said(many) == "same"
    wait_until(lambda: metric(url, gauge) == 0)
    return each


def test_the_relay_holds_thousands_of_idle_connections(server: str) -> None:
    limit = ("--max-connections", str(CONNECTIONS))
    command = ("relay", "--listen", "tcp:127.0.0.1:0", "--to", f"tcp:{server}", *limit, "--json")
    with process("-m", "cloister.cli.main", *command, "--metrics-listen", "127.0.0.1:0") as relay:
        shown = json.loads(said(relay))
        address = shown["address"].removeprefix("tcp:")
        opened = (shown["metrics"], "cloister_relay_connections_open")
        each = cost_of_each(relay.pid, address, opened)
        print(f"RSS of an idle relayed connection, {CONNECTIONS} open: {each:.2f} KiB")  # noqa: T201
        assert metric(shown["metrics"], "cloister_relay_refused_total") == 0
        assert metric(shown["metrics"], "cloister_relay_connect_errors_total") == 0
        assert each < RELAY_KIB


def test_the_data_plane_passes_thousands_of_idle_connections(server: str) -> None:
    with process("-c", PLANE, server) as plane:
        address, metrics = said(plane).split()
        url = f"http://{metrics}/metrics"
        each = cost_of_each(plane.pid, address, (url, "cloister_sessions_open"))
        print(f"RSS of an idle connection passed through, {CONNECTIONS} open: {each:.2f} KiB")  # noqa: T201
        assert metric(url, "cloister_connections_shed_total") == 0
        assert each < PASSTHROUGH_KIB
