"""``cloister relay`` as a process: what it prints, how it ends, why it does not start."""

import contextlib
import json
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator

import pytest
from tests.support.sockets import connect, echo, peer, read_all, read_exactly, short_folder

COMMAND = [sys.executable, "-m", "cloister.cli.main", "relay"]


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and the first line it prints; killed when the block ends before it does."""
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line:
            assert process.stderr is not None
            pytest.fail(process.stderr.read())
        yield process, line
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and standard error."""
    _, said = process.communicate(timeout=20)
    return process.returncode, said


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_what_is_in_flight_and_ends_with_success(stop: signal.Signals) -> None:
    with (
        peer(echo) as server,
        running("--listen", "tcp:127.0.0.1:0", "--to", server.address) as (process, address),
        connect(address) as client,
    ):
        client.sendall(b"before")
        assert read_exactly(client, 6) == b"before"
        process.send_signal(stop)
        assert process.stderr is not None
        assert "draining: 1 connections" in process.stderr.readline()
        client.sendall(b"after")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"after"
        status, said = ended(process)
        assert status == 0
        assert "stopped: 1 connections, 11 bytes in, 11 bytes out" in said


def test_a_second_signal_does_not_wait() -> None:
    with (
        peer(echo) as server,
        running("--listen", "tcp:127.0.0.1:0", "--to", server.address) as (process, address),
        connect(address) as client,
    ):
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        status, _ = ended(process)
        assert status == 0
        assert client.recv(1) == b""


def test_json_and_metrics_are_for_programs() -> None:
    with (
        short_folder() as folder,
        peer(echo) as server,
        running(
            *("--listen", f"unix:{folder}/in", "--to", server.address),
            *("--metrics-listen", "127.0.0.1:0", "--json"),
        ) as (process, line),
    ):
        shown = json.loads(line)
        assert shown["address"] == f"unix:{folder}/in"
        with connect(shown["address"]) as client:
            client.sendall(b"12345")
            assert read_exactly(client, 5) == b"12345"
            with urllib.request.urlopen(shown["metrics"], timeout=10) as answer:  # noqa: S310
                text = answer.read().decode()
        assert "\ncloister_relay_in_bytes_total 5\n" in text
        assert "\ncloister_relay_connections_open 1\n" in text
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 0
        assert not (folder / "in").exists()


def test_proxy_protocol_is_sent_when_asked_for() -> None:
    heard: list[bytes] = []
    done = threading.Event()

    def keep(connection: socket.socket) -> None:
        heard.append(read_exactly(connection, 29))
        done.set()

    with (
        peer(keep) as server,
        running(
            *("--listen", "tcp:127.0.0.1:0", "--to", server.address, "--proxy-protocol", "v2")
        ) as (_, address),
        connect(address) as client,
    ):
        client.sendall(b"!")
        assert done.wait(10)
    assert heard[0].startswith(
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01"
    )
    assert heard[0].endswith(b"!")


def test_a_peer_that_is_away_is_told_on_standard_error(tmp_path: pathlib.Path) -> None:
    nobody = f"unix:{tmp_path.name}-nobody"
    with running("--listen", "tcp:127.0.0.1:0", "--to", nobody) as (process, address):
        # The reset may come before or after connect(2) has returned.
        with contextlib.suppress(ConnectionResetError), connect(address) as client:
            assert client.recv(1) == b""
        assert process.stderr is not None
        said = process.stderr.readline()
        assert said.startswith("warning: cannot connect to unix:")
        process.send_signal(signal.SIGTERM)
        assert "1 not connected" in ended(process)[1]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--listen", "tcp:127.0.0.1:0"], 2, "--to"),
        (["--listen", "127.0.0.1:0", "--to", "unix:x"], 2, "listen: expected tcp:HOST:PORT"),
        (["--listen", "tcp:127.0.0.1:0", "--to", "x"], 2, "to: expected tcp:HOST:PORT"),
        (["--listen", "unix:/nowhere/at/all", "--to", "unix:x"], 69, "there is no such folder"),
        (["--listen", "tcp:192.0.2.1:0", "--to", "unix:x"], 69, "no such address"),
        (["--listen", "tcp:a:0", "--to", "unix:x", "--idle-timeout", "5"], 2, "90s"),
        (["--listen", "tcp:a:0", "--to", "unix:x", "--proxy-protocol", "v1"], 2, "v1"),
        (["--listen", "tcp:127.0.0.1:0", "--to", "unix:x", "--metrics-listen", "1"], 2, "metrics"),
    ],
)
def test_what_cannot_be_started_says_why_and_with_which_status(
    arguments: list[str], status: int, message: str
) -> None:
    done = subprocess.run(
        [*COMMAND, *arguments], check=False, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == status
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_an_error_with_a_hint() -> None:
    with peer(echo) as server:
        done = subprocess.run(
            [*COMMAND, "--listen", server.address, "--to", "unix:x", "--json"],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert done.returncode == 69
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "TransportError"
    assert "in use" in error["message"]
    assert "port 0" in error["hint"]
