"""What is said of a platform that cannot be asked: the cause, and soon."""

import pathlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
from tests.support.platform_server import free_address
from tests.support.server_certificates import Authority
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from cloister.errors import ConfigError, MissingInput, TransportError
from cloister.platform.https import ABSENCE_SECONDS, PlatformClient
from cloister.platform.unreachable import Kind, cause_of

DEADLINE_SECONDS = 15.0
SOON_SECONDS = 5.0


class Listener:
    """Answers every connection: with TLS where it has a context, else with a line of text."""

    def __init__(self, context: ssl.SSLContext | None, address: str = "127.0.0.1") -> None:
        self._context = context
        self._socket = socket.create_server((address, 0))
        self.port: int = self._socket.getsockname()[1]
        self.connections = 0
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def end(self) -> None:
        """Accepts no more, and ends."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(SOON_SECONDS)
        assert not self._thread.is_alive()
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            link.settimeout(SOON_SECONDS)
            with link:
                self._answer(link)

    def _answer(self, link: socket.socket) -> None:
        try:
            if self._context is None:
                link.sendall(b"220 mail.example.com\r\n")
                link.recv(1 << 16)
                return
            with self._context.wrap_socket(link, server_side=True) as secured:
                secured.recv(1 << 16)
                secured.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n[1]")
        except OSError:  # it does not like the certificate
            return


@pytest.fixture
def authority(tmp_path: pathlib.Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def secured(authority: Authority) -> Iterator[Listener]:
    made = Listener(authority.server("server").context())
    yield made
    made.end()


@pytest.fixture
def unsecured() -> Iterator[Listener]:
    made = Listener(None)
    yield made
    made.end()


def asked(url: str, authority: Authority, *, absence_s: float | None = 0.5) -> object:
    client = PlatformClient(url, "cp_x", ca_file=authority.file, absence_s=absence_s)
    try:
        return client.get("/v1/apps", deadline_s=DEADLINE_SECONDS)
    finally:
        client.close()


def test_a_refused_connection_is_said_soon(secured: Listener, authority: Authority) -> None:
    """It was tried again for 15 seconds, and then called a time-out."""
    assert asked(f"https://localhost:{secured.port}", authority) == [1]
    begun = time.monotonic()
    with pytest.raises(TransportError, match="the connection is refused") as caught:
        asked(f"https://{free_address()}", authority)
    assert time.monotonic() - begun < SOON_SECONDS
    assert "platform serve" in str(caught.value.hint)
    assert ABSENCE_SECONDS == 3.0


def test_an_attempt_that_is_cut_short_leaves_the_cause_of_the_one_before(
    authority: Authority,
) -> None:
    """A host tries until its deadline: the last attempt has no time left to be refused in."""
    client = PlatformClient(f"https://{free_address()}", "cp_x", ca_file=authority.file)
    begun = time.monotonic()
    with pytest.raises(TransportError, match="the connection is refused"):
        client.get("/v1/apps", deadline_s=1.5)
    assert time.monotonic() - begun > 0.7  # it was tried again meanwhile


def test_a_certificate_for_another_name_says_so_at_once(
    secured: Listener, authority: Authority
) -> None:
    assert asked(f"https://localhost:{secured.port}", authority) == [1]
    elsewhere = Listener(authority.server("server").context(), "127.0.0.2")
    try:
        with pytest.raises(TransportError, match=r"for other names than `127\.0\.0\.2`") as caught:
            asked(f"https://127.0.0.2:{elsewhere.port}", authority)
    finally:
        elsewhere.end()
    assert "--name" in str(caught.value.hint)
    assert elsewhere.connections == 1


def test_a_certificate_of_a_stranger_is_not_tried_again(
    secured: Listener, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "stranger").mkdir()
    stranger = Authority(tmp_path / "stranger")
    with pytest.raises(TransportError, match="not of an authority that is believed") as caught:
        asked(f"https://localhost:{secured.port}", stranger)
    assert "CLOISTER_PLATFORM_CA" in str(caught.value.hint)
    assert secured.connections == 1


def test_a_port_without_tls_says_so(unsecured: Listener, authority: Authority) -> None:
    client = PlatformClient(f"https://localhost:{unsecured.port}", "cp_x", ca_file=authority.file)
    with pytest.raises(TransportError, match="does not speak TLS"):
        client.get("/v1/apps", deadline_s=0.5)
    client.close()


def test_each_cause_has_its_own_words() -> None:
    """Those that no server of a test can be: unknown names, routes that are not there."""
    connection = HTTPSConnection("nowhere.example")
    unknown = NameResolutionError("nowhere.example", connection, socket.gaierror(-2, "not known"))
    said = cause_of(unknown, host="nowhere.example")
    assert said.message == "the name `nowhere.example` is not known to this machine"
    assert (said.kind, said.was_not_sent) == (Kind.ABSENT, True)

    unrouted = NewConnectionError(connection, "failed")
    unrouted.__cause__ = OSError(101, "Network is unreachable")
    said = cause_of(unrouted, host="a.example")
    assert said.message == "there is no connection: network is unreachable"
    assert said.kind is Kind.ABSENT

    silent = cause_of(ConnectTimeoutError("slow"), host="a.example")
    assert (silent.kind, silent.was_not_sent) == (Kind.OVERDUE, True)
    assert silent.message == "it did not answer in time"

    broken = cause_of(ConnectionResetError(104, "Connection reset by peer"), host="a.example")
    assert (broken.kind, broken.was_not_sent) == (Kind.PASSING, False)

    expired = ssl.SSLCertVerificationError("CERTIFICATE_VERIFY_FAILED")
    expired.verify_code = 10
    assert "expired" in cause_of(expired, host="a.example").message
    assert cause_of(expired, host="a.example").kind is Kind.LASTING


@pytest.mark.parametrize("path", ["/v1", "/cloister/", "//"])
def test_an_address_with_a_path_is_refused(authority: Authority, path: str) -> None:
    """Calls went to `/v1/v1/apps`, and the answer was that there is no such call."""
    PlatformClient("https://localhost:1/", "cp_x", ca_file=authority.file).close()
    with pytest.raises(ConfigError, match=r"there is a path behind it"):
        PlatformClient(f"https://localhost:1{path}", "cp_x", ca_file=authority.file)


def test_a_file_that_is_missing_is_not_called_wrong(
    authority: Authority, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(MissingInput, match="cannot be read: No such file"):
        PlatformClient("https://localhost:1", "cp_x", ca_file=tmp_path / "none.pem")
    (tmp_path / "text.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match="not a certificate in PEM"):
        PlatformClient("https://localhost:1", "cp_x", ca_file=tmp_path / "text.pem")
    assert authority.file.is_file()
