"""A TLS server that stands for an enclave: a certificate, documents, and a count of what arrives.

It speaks enough HTTP/1.1 for a client under test and keeps what it was sent, connection by
connection, so that a test can say that nothing arrived.
"""

import base64
import contextlib
import datetime as dt
import json
import pathlib
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterator

from cloister._native import attest as native
from cloister.moments import to_ms
from cloister.testing.authority import Authority

WELL_KNOWN = "/.well-known/attestation"

Documents = Callable[[bytes, bytes | None], bytes]
"""From the TLS key and a nonce to a document."""


class EnclaveServer:
    """One enclave on a port of the loopback.

    ``request_bytes`` counts every byte that came through TLS and was not of a fetch of a document.

    Args:
        module: Signs the documents.
        folder: For key and certificate files.
    """

    def __init__(self, module: native.SimulatedNsm, folder: pathlib.Path) -> None:
        self.module = module
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.fetches = 0
        self.request_bytes = 0
        self.connections = 0
        self.redirect_to: str | None = None
        self.closes_after_answer = False
        self.drips = False
        self.documents: Documents = self.genuine
        self.answer_for_documents: Callable[[], bytes | None] = lambda: None
        self.ca_file = folder / "ca.pem"
        self._lock = threading.Lock()
        self._folder = folder
        self._authority = Authority()
        self.ca_file.write_bytes(self._authority.pem)
        self.spki = b""
        self._context = self.new_key()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    @property
    def url(self) -> str:
        """Origin of this enclave."""
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def new_key(self) -> ssl.SSLContext:
        """Another TLS key and certificate for connections from here on."""
        made = self._authority.identity()
        bundle = self._folder / "enclave.pem"
        bundle.write_bytes(made.key_pem + made.certificate_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(bundle)
        self.spki = made.spki
        self._leaf = made.der
        self._context = context
        return context

    def leaf_der(self) -> bytes:
        """The certificate that connections see now."""
        return self._leaf

    def genuine(self, spki: bytes, nonce: bytes | None) -> bytes:
        """The document of this enclave now."""
        now = to_ms(dt.datetime.now(dt.UTC))
        return self.module.document(now_ms=now, user_data=spki, nonce=nonce)

    def close(self) -> None:
        """Ends every thread."""
        self._stop.set()
        self._listener.close()
        self._accepting.join(timeout=10)
        for thread in self._threads:
            thread.join(timeout=10)

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                raw, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(raw,))
            thread.start()
            self._threads.append(thread)

    def _serve(self, raw: socket.socket) -> None:
        raw.settimeout(5)
        spki = self.spki
        with (
            contextlib.suppress(OSError),
            raw,
            self._context.wrap_socket(raw, server_side=True) as stream,
        ):
            with self._lock:
                self.connections += 1
            while not self._stop.is_set() and self._one(stream, spki):
                pass

    def _one(self, stream: ssl.SSLSocket, spki: bytes) -> bool:
        """Answers one request; false when the connection is over."""
        stream.settimeout(0.1)
        head = b""
        while b"\r\n\r\n" not in head:
            try:
                piece = stream.recv(4096)
            except TimeoutError:
                if self._stop.is_set():
                    return False
                continue
            if not piece:
                return False
            head += piece
            with self._lock:
                self.request_bytes += len(piece)
        stream.settimeout(5)
        lines = head.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        target = lines[0].split(" ")[1]
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:])
        }
        path, _, query = target.partition("?")
        if path == WELL_KNOWN:
            self._attest(stream, spki, query, len(head))
            return False
        with self._lock:
            self.requests.append((path, headers))
        if self.redirect_to is not None and path == "/redirect":
            self._answer(stream, b"", f"302 Found\r\nlocation: {self.redirect_to}")
        else:
            self._answer(stream, b'{"ok":true}', "200 OK")
        return not self.closes_after_answer

    def _attest(self, stream: ssl.SSLSocket, spki: bytes, query: str, head_bytes: int) -> None:
        with self._lock:
            self.fetches += 1
            self.request_bytes -= head_bytes
        given = urllib.parse.parse_qs(query).get("nonce")
        nonce = base64.urlsafe_b64decode(given[0] + "=" * (-len(given[0]) % 4)) if given else None
        while self.drips and not self._stop.wait(0.05):
            stream.sendall(b"H")
        body = self.answer_for_documents()
        if body is None:
            document = self.documents(spki, nonce)
            body = json.dumps({"attestation_doc": base64.b64encode(document).decode()}).encode()
        self._answer(stream, body, "200 OK", close=True)

    def _answer(
        self, stream: ssl.SSLSocket, body: bytes, status: str, *, close: bool = False
    ) -> None:
        end = "connection: close\r\n" if close or self.closes_after_answer else ""
        head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{end}\r\n"
        stream.sendall(head.encode() + body)


@contextlib.contextmanager
def serving(module: native.SimulatedNsm, folder: pathlib.Path) -> Iterator[EnclaveServer]:
    """An enclave for the length of a block."""
    folder.mkdir(exist_ok=True)
    server = EnclaveServer(module, folder)
    try:
        yield server
    finally:
        server.close()
