"""``tls_termination = false`` with TLS servers, load balancers and clients that nobody here wrote.

nginx ends the TLS and says whom it was told of; HAProxy stands where a load balancer would, in
front of the data plane. What arrives byte for byte is in
``rust/devplane/tests/engine/raw_passthrough.rs``.
"""

import contextlib
import hashlib
import json
import pathlib
import random
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.application import wait_until
from tests.support.tools import certificate, free_port, haproxy, needed, nginx, serving

from cloister.dev import DataPlane, Relay
from cloister.errors import UsageError

PASSTHROUGH: dict[str, Any] = {
    "tls": {"termination": False},
    "api_key_auth": False,
    "logs": {"trx_logging": False},
}
REPLAYED = PASSTHROUGH | {"forward_proxy_protocol": True}
LARGE = 16 << 20


class App:
    """nginx with a certificate of its own, on a port that speaks TLS and one behind a header."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.certificate, self.key = certificate(folder)
        self.plain, self.behind, self.health = free_port(), free_port(), free_port()
        self.large = random.Random(5).randbytes(LARGE)  # noqa: S311 - bytes to compare
        (folder / "large").write_bytes(self.large)
        (folder / "large").chmod(0o644)
        tls = f"ssl_certificate {self.certificate}; ssl_certificate_key {self.key};"
        said = '"$proxy_protocol_addr $proxy_protocol_server_port $server_protocol\\n"'
        locations = f"location /large {{ root {folder}; }}"
        self.command = nginx(
            folder,
            f"server {{ listen 127.0.0.1:{self.plain} ssl http2; {tls} {locations}\n"
            'location / { default_type text/plain; return 200 "$server_protocol\\n"; } }\n'
            f"server {{ listen 127.0.0.1:{self.behind} ssl http2 proxy_protocol; {tls}\n"
            f"location / {{ default_type text/plain; return 200 {said}; }} }}\n"
            f"server {{ listen 127.0.0.1:{self.health};\n"
            'location / { default_type text/plain; return 200 "well\\n"; } }',
        )

    def curl(self, address: str, path: str = "/", *words: str) -> bytes:
        """A request that trusts the application's own certificate and no other."""
        command = ["curl", "-sS", "--max-time", "20", "--cacert", str(self.certificate), *words]
        return subprocess.run(
            [*command, f"https://{address}{path}"], capture_output=True, check=True
        ).stdout


@pytest.fixture
def app(tmp_path: pathlib.Path) -> Iterator[App]:
    needed("nginx")
    made = App(tmp_path)
    with serving(made.command, made.plain, tmp_path / "nginx.log"):
        yield made


def test_the_client_sees_the_certificate_and_the_protocol_of_the_application(app: App) -> None:
    with DataPlane(f"127.0.0.1:{app.plain}", config=PASSTHROUGH) as plane:
        assert plane.ca_pem is None
        assert plane.url.startswith("tcp://")
        assert app.curl(plane.address) == b"HTTP/2.0\n"
        assert app.curl(plane.address, "/", "--http1.1") == b"HTTP/1.1\n"
        got = app.curl(plane.address, "/large")
        assert hashlib.sha256(got).digest() == hashlib.sha256(app.large).digest()
        wait_until(lambda: plane.stats()["active_sessions"] == 0)
        stats = plane.stats()
        assert (stats["sessions"], stats["requests"], stats["failed_handshakes"]) == (3, 0, 0)
        assert stats["bytes_out"] > LARGE


def test_health_and_the_internal_api_are_served_all_the_same(app: App) -> None:
    config = PASSTHROUGH | {"healthcheck": {"path": "/", "port": app.health}}
    with DataPlane(
        f"127.0.0.1:{app.plain}",
        config=config,
        metrics_listen="127.0.0.1:0",
        internal_api="127.0.0.1:0",
    ) as plane:
        wait_until(lambda: plane.health()["process_healthy"] is True)
        health = plane.health()
        assert (health["state"], health["certificate_not_after"]) == ("ready", None)
        with urllib.request.urlopen(f"http://{plane.metrics_address}/metrics", timeout=10) as page:
            assert b"cloister_sessions_total 0" in page.read()
        done = subprocess.run(
            ["curl", "-sS", "-d", '{"a": 1}', f"http://{plane.internal_api}/encrypt"],
            capture_output=True,
            check=True,
        )
        assert json.loads(done.stdout)["a"].startswith("ev:")


def lines(got: bytes) -> list[str]:
    return got.decode().split()


@pytest.mark.parametrize("options", ["", "proxy-v2-options crc32c,unique-id,authority,ssl"])
def test_haproxy_in_front_tells_the_application_who_connects(
    app: App, tmp_path: pathlib.Path, options: str
) -> None:
    """Its own client address and port arrive at nginx, through the data plane."""
    needed("haproxy")
    with DataPlane(
        f"127.0.0.1:{app.behind}",
        config=REPLAYED,
        proxy_protocol=True,
        metrics_listen="127.0.0.1:0",
    ) as plane:
        door = free_port()
        command = haproxy(
            tmp_path,
            "frontend door\n  unique-id-format %{+X}o\\ %ci:%cp\n"
            f"  bind 127.0.0.1:{door}\n  default_backend plane\n"
            "backend plane\n"
            f"  server plane {plane.address} send-proxy-v2 {options} check inter 200",
        )
        with serving(command, door, tmp_path / "haproxy.log"):
            address = f"127.0.0.1:{door}"
            assert lines(app.curl(address)) == ["127.0.0.1", str(door), "HTTP/2.0"]
            from_another = app.curl(address, "/", "--interface", "127.0.0.9")
            assert lines(from_another) == ["127.0.0.9", str(door), "HTTP/2.0"]
            # The checks of HAProxy (LOCAL) and of the data plane itself are none of its complaints.
            wait_until(lambda: plane.stats()["sessions"] >= 5)
            wait_until(lambda: plane.health()["process_healthy"] is True)
        assert plane.stats()["refused_headers"] == 0
    assert "broken header" not in (tmp_path / "nginx.log").read_text()


def test_our_relay_in_front_tells_it_too(app: App) -> None:
    with (
        DataPlane(f"127.0.0.1:{app.behind}", config=REPLAYED, proxy_protocol=True) as plane,
        Relay(listen="tcp:127.0.0.1:0", to=f"tcp:{plane.address}", proxy_protocol=True) as relay,
    ):
        address = relay.address.removeprefix("tcp:")
        said = lines(app.curl(address, "/", "--interface", "127.0.0.7"))
        assert said == ["127.0.0.7", address.rpartition(":")[2], "HTTP/2.0"]


def test_version_one_is_refused_and_version_two_is_served(app: App, tmp_path: pathlib.Path) -> None:
    """What curl and ``send-proxy`` of HAProxy write; the twin with version 2 is served."""
    needed("haproxy")
    with DataPlane(f"127.0.0.1:{app.plain}", config=PASSTHROUGH, proxy_protocol=True) as plane:
        done = subprocess.run(
            ["curl", "-sS", "-k", "--haproxy-protocol", f"https://{plane.address}/"],
            capture_output=True,
            check=False,
            timeout=20,
        )
        assert done.returncode != 0
        assert plane.stats()["refused_headers"] == 1
        for version, served in (("send-proxy", False), ("send-proxy-v2", True)):
            door = free_port()
            folder = tmp_path / version
            folder.mkdir()
            command = haproxy(
                folder,
                f"listen door\n  bind 127.0.0.1:{door}\n  server plane {plane.address} {version}",
            )
            with serving(command, door, folder / "haproxy.log"):
                if served:
                    assert app.curl(f"127.0.0.1:{door}") == b"HTTP/2.0\n"
                    continue
                with pytest.raises(subprocess.CalledProcessError):
                    app.curl(f"127.0.0.1:{door}")


def test_the_limit_of_connections_holds(app: App) -> None:
    acceptor = {"acceptor": {"max_concurrent_connections": 5, "max_concurrent_handshakes": 5}}
    with DataPlane(f"127.0.0.1:{app.plain}", config=PASSTHROUGH | acceptor) as plane:
        host, _, port = plane.address.rpartition(":")
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(socket.create_connection((host, int(port)), 10))
            wait_until(lambda: plane.stats()["active_sessions"] == 5)
            with socket.create_connection((host, int(port)), 10) as sixth:
                sixth.settimeout(10)
                assert sixth.recv(1) == b""
            assert plane.stats()["shed"] == 1
        wait_until(lambda: plane.stats()["active_sessions"] == 0)
        assert app.curl(plane.address) == b"HTTP/2.0\n"


def test_a_certificate_of_ours_would_be_of_no_use(app: App) -> None:
    with pytest.raises(UsageError, match="application"):
        DataPlane("127.0.0.1:1", config=PASSTHROUGH, certificate=(app.certificate, app.key))
