"""``[service] protocol = "tcp"`` with clients and servers that nobody here wrote.

openssl, socat and redis speak TLS to the data plane; redis, socat and a server that speaks first
are behind it. What a hostile peer may try is in ``rust/devplane/tests/engine/raw.rs``.
"""

import hashlib
import json
import pathlib
import random
import shlex
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.application import wait_until
from tests.support.sockets import connect, peer, read_all
from tests.support.tools import free_port, needed, serving

from cloister.dev import DataPlane
from cloister.errors import ConfigError

TCP: dict[str, Any] = {"service": {"protocol": "tcp"}, "api_key_auth": False}
BULK = 32 << 20


@pytest.fixture
def cat(tmp_path: pathlib.Path) -> Iterator[str]:
    """A socat in front of ``cat``: says back what it hears, ends when it is told the end."""
    needed("socat")
    port = free_port()
    command = ["socat", f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork", "EXEC:cat"]
    with serving(command, port, tmp_path / "socat.log"):
        yield f"127.0.0.1:{port}"


def socat_through(plane: DataPlane, said: bytes) -> bytes:
    """What comes back to a socat that says this, ends its side and waits for the other end."""
    far = f"OPENSSL:{plane.address},cafile={plane.ca_file},verify=1,commonname=localhost"
    command = ["socat", "-t", "30", "-", far]
    return subprocess.run(command, input=said, capture_output=True, check=True, timeout=120).stdout


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("offer", [(), ("-alpn", "postgresql"), ("-alpn", "h2,http/1.1")])
def test_openssl_talks_to_what_is_behind(cat: str, version: str, offer: tuple[str, ...]) -> None:
    with DataPlane(cat, config=TCP) as plane:
        said = b"GET / HTTP/1.1 is nothing special here\n\x00\xff"
        # It waits for the answer because the end of its input is not the end for it.
        command = ["openssl", "s_client", "-quiet", "-verify_return_error", version, *offer]
        command += ["-CAfile", str(plane.ca_file), "-connect", plane.address]
        client = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(said)
        client.stdin.flush()
        got = client.stdout.read(len(said))
        client.terminate()
        client.communicate()
        assert got == said
        assert plane.url == f"tls://localhost:{plane.address.rpartition(':')[2]}"


def test_a_large_transfer_is_whole_both_ways_and_ends_by_itself(cat: str) -> None:
    with DataPlane(cat, config=TCP) as plane:
        said = random.Random(7).randbytes(BULK)  # noqa: S311 - bytes to compare
        got = socat_through(plane, said)
        assert hashlib.sha256(got).digest() == hashlib.sha256(said).digest()
        wait_until(lambda: plane.stats()["active_sessions"] == 0)
        stats = plane.stats()
        assert (stats["sessions"], stats["requests"]) == (1, 0)
        assert (stats["bytes_in"], stats["bytes_out"]) == (BULK, BULK)


def test_a_server_that_speaks_first_is_not_waited_for(tmp_path: pathlib.Path) -> None:
    needed("socat")
    port = free_port()
    listen = f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork"
    script = tmp_path / "greet"
    script.write_text("#!/bin/sh\nprintf '220 ready\\r\\n'\nexec cat\n")
    script.chmod(0o755)
    command = ["socat", listen, f"EXEC:{script}"]
    with (
        serving(command, port, tmp_path / "socat.log"),
        DataPlane(f"127.0.0.1:{port}", config=TCP) as plane,
    ):
        context = ssl.create_default_context(cafile=str(plane.ca_file))
        began = time.monotonic()
        with context.wrap_socket(connect(f"tcp:{plane.address}"), server_hostname="localhost") as s:
            assert s.recv(64) == b"220 ready\r\n"
            assert time.monotonic() - began < 2
            s.sendall(b"HELO\r\n")
            assert s.recv(64) == b"HELO\r\n"


def test_redis_is_served_and_logged(tmp_path: pathlib.Path) -> None:
    needed("redis-server", "redis-cli")
    port, logs = free_port(), tmp_path / "trx.ndjson"
    server = shlex.split(f"redis-server --port {port} --bind 127.0.0.1 --save '' --dir {tmp_path}")
    with (
        serving(server, port, tmp_path / "redis.log"),
        DataPlane(
            f"127.0.0.1:{port}", config=TCP, logs=logs, metrics_listen="127.0.0.1:0"
        ) as plane,
    ):
        host, _, at = plane.address.rpartition(":")
        command = ["redis-cli", "--tls", "--cacert", str(plane.ca_file), "-h", host, "-p", at]
        command += ["--sni", "localhost"]

        def redis(*words: str, said: bytes | None = None) -> str:
            done = subprocess.run(
                [*command, *words], input=said, capture_output=True, check=True, timeout=30
            )
            return done.stdout.decode()

        assert redis("set", "name", "Ada") == "OK\n"
        assert redis("get", "name") == "Ada\n"
        large = random.Random(3).randbytes(1 << 20).hex().encode()  # noqa: S311
        assert redis("-x", "set", "large", said=large) == "OK\n"
        assert redis("strlen", "large") == f"{len(large)}\n"
        # Thousands of requests on one connection, sent before the first is answered.
        pipelined = b"".join(b"INCR counter\r\n" for _ in range(5000))
        assert "errors: 0, replies: 5000" in redis("--pipe", said=pipelined)
        assert redis("get", "counter") == "5000\n"
        wait_until(lambda: len(logs.read_bytes().splitlines()) == 6)
        records = [json.loads(line) for line in logs.read_text().splitlines()]
        assert {record["requestType"] for record in records} == {"TCP"}
        assert {record["remoteIp"] for record in records} == {"127.0.0.1"}
        assert max(record["bytesIn"] for record in records) > len(large)
        assert all(record["elapsed"] > 0 and record["txid"] for record in records)
        metrics = plane_metrics(plane)
        assert "cloister_sessions_total 6" in metrics
        assert "cloister_sessions_open 0" in metrics


def plane_metrics(plane: DataPlane) -> str:
    """``/metrics`` of a data plane, as curl sees it."""
    command = ["curl", "-sS", f"http://{plane.metrics_address}/metrics"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_quiet_session_costs_little(tmp_path: pathlib.Path) -> None:
    """What a session costs that has said something and waits; the figure is printed."""
    count = 500
    script = tmp_path / "plane.py"
    script.write_text(
        "import sys\nfrom cloister.dev import DataPlane\n"
        f"with DataPlane(sys.argv[1], config={TCP!r}) as plane:\n"
        "    print(plane.address, plane.ca_file, flush=True)\n    sys.stdin.read()\n"
    )

    def hold(connection: Any) -> None:
        connection.sendall(connection.recv(16))
        read_all(connection)

    with peer(hold) as server:
        process = subprocess.Popen(
            [sys.executable, str(script), server.address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            address, ca_file = process.stdout.readline().split()
            context = ssl.create_default_context(cafile=ca_file)
            opened: list[ssl.SSLSocket] = []

            def more(number: int) -> int:
                for _ in range(number):
                    raw = connect(f"tcp:{address}")
                    opened.append(context.wrap_socket(raw, server_hostname="localhost"))
                    opened[-1].sendall(b"x")
                    assert opened[-1].recv(1) == b"x"
                time.sleep(1)  # a session that has waited for half a second gives its buffers back
                return rss_kib(process.pid)

            before = more(50)
            each = (more(count) - before) / count
            print(f"RSS of a quiet TCP session: {each:.1f} KiB")  # noqa: T201 - the figure
            assert each < 40
            for one in opened:
                one.close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()


def rss_kib(pid: int) -> int:
    """Resident memory of a process, KiB."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1])


def test_a_key_that_could_not_be_asked_for_is_refused(cat: str) -> None:
    with pytest.raises(ConfigError, match="api_key_auth"):
        DataPlane(cat, config={"service": {"protocol": "tcp"}}).start()
    with DataPlane(cat, config=TCP) as plane:
        assert socat_through(plane, b"said") == b"said"
