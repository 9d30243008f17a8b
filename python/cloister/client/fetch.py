"""Fetches attestation documents from an enclave, over a connection of its own.

That connection has passed the ordinary certificate and host name checks, and what comes is not
believed: whoever asked verifies it. Every wait has a limit, and so has the answer.
"""

import base64
import binascii
import contextlib
import dataclasses
import json
import socket
import threading
from collections.abc import Mapping
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from cloister import attest
from cloister.client.enclave_url import EnclaveUrl
from cloister.client.tls_check import install
from cloister.errors import MalformedDocument, TransportError


@dataclasses.dataclass(frozen=True, slots=True)
class Fetched:
    """A document that nobody has verified.

    Args:
        document: The ``COSE_Sign1``.
        spki: ``SubjectPublicKeyInfo`` of the leaf of the connection it came over.
    """

    document: bytes
    spki: bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """Where documents come from.

    Args:
        enclave: The enclave.
        ca_file: Certificates that may sign the enclave's; ``None`` for those of ``requests``.
        timeout_seconds: For the whole of a fetch.
        proxies: As in ``requests``; read at each fetch.
        trust_environment: Honor proxies and netrc of the environment, as ``requests`` does.
    """

    enclave: EnclaveUrl
    ca_file: str | None = None
    timeout_seconds: float = 15.0
    proxies: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    trust_environment: bool = True

    def fetch(self, *, nonce: bytes | None = None) -> Fetched:
        """The enclave's document now; with a nonce, one made for it.

        Args:
            nonce: 16 to 512 bytes.

        Raises:
            TransportError: It could not be had: connection, certificate, status, time.
            MalformedDocument: The answer is not one of an enclave.
        """
        noted = _Noted()
        # `requests` limits each wait; this limits them all, whatever the peer drips.
        end = threading.Timer(self.timeout_seconds, noted.cut)
        end.daemon = True
        end.start()
        try:
            with requests.Session() as session:
                session.trust_env = self.trust_environment
                session.proxies.update(self.proxies)
                session.mount("https://", _NotingAdapter(noted))
                body = self._get(session, nonce, noted)
        finally:
            end.cancel()
        if not noted.leaves:
            raise TransportError(f"{self.enclave} answered without a connection of its own")
        return Fetched(_document(body), attest.subject_public_key_info(noted.leaves[-1]))

    def _get(self, session: requests.Session, nonce: bytes | None, noted: "_Noted") -> bytes:
        query = {} if nonce is None else {"nonce": _base64url(nonce)}
        try:
            with session.get(
                f"{self.enclave}{PATH}",
                params=query,
                headers={"accept": "application/json"},
                verify=self.ca_file or True,
                timeout=self.timeout_seconds,
                allow_redirects=False,
                stream=True,
            ) as answer:
                if answer.status_code != requests.codes.ok:
                    raise TransportError(
                        f"{self.enclave}{PATH} answered {answer.status_code}, expected 200",
                        hint=_STATUS_HINTS.get(answer.status_code),
                    )
                body = self._read(answer)
        except requests.exceptions.SSLError as problem:
            raise TransportError(
                f"TLS with {self.enclave} failed: {_reason(problem)}",
                hint="give the CA that signed its certificate, by `ca_file` or `--ca-file`",
            ) from problem
        except requests.exceptions.RequestException as problem:
            if noted.is_cut:
                raise self._too_slow() from problem
            raise TransportError(f"cannot reach {self.enclave}: {_reason(problem)}") from problem
        if noted.is_cut:
            raise self._too_slow()
        return body

    def _too_slow(self) -> TransportError:
        return TransportError(f"{self.enclave} took longer than {self.timeout_seconds} s")

    def _read(self, answer: requests.Response) -> bytes:
        body = bytearray()
        for chunk in answer.iter_content(chunk_size=8192):
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise MalformedDocument(
                    f"the answer of {self.enclave}{PATH} is longer than {MAX_ANSWER_BYTES} bytes"
                )
        return bytes(body)


class _Noted:
    """The connections of one fetch: their leaf certificates, and their sockets to end them by."""

    def __init__(self) -> None:
        self.leaves: list[bytes] = []
        self.is_cut = False
        self._sockets: list[socket.socket] = []

    def opened(self, sock: socket.socket) -> None:
        self._sockets.append(sock)

    def cut(self) -> None:
        self.is_cut = True
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class _NotingAdapter(HTTPAdapter):
    """Notes the leaf certificate of each connection; the document decides what it is worth."""

    def __init__(self, noted: _Noted) -> None:
        self._noted = noted
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as requests has it
        super().init_poolmanager(*args, **kwargs)
        install(self.poolmanager, self._noted.leaves.append, self._noted.opened)

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as requests has it
        manager = super().proxy_manager_for(proxy, **kwargs)
        install(manager, self._noted.leaves.append, self._noted.opened)
        return manager


def _document(body: bytes) -> bytes:
    try:
        text = json.loads(body)["attestation_doc"]
        return base64.b64decode(text, validate=True)
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        raise MalformedDocument(
            f"the answer of {PATH} is not JSON with `attestation_doc` in base64",
            hint="is this an enclave with `tls_termination`?",
        ) from None


def _base64url(nonce: bytes) -> str:
    return base64.urlsafe_b64encode(nonce).rstrip(b"=").decode("ascii")


def _reason(problem: BaseException) -> str:
    """The innermost cause, which is the one that says something."""
    while True:
        inner = getattr(problem, "reason", None) or problem.__cause__ or problem.__context__
        if not isinstance(inner, BaseException):
            return f"{problem}"
        problem = inner


PATH = "/.well-known/attestation"
MAX_ANSWER_BYTES = 65_536
"""A document has at most 16 KiB; in base64 and JSON it is far below this."""
_STATUS_HINTS = {
    404: "is this an enclave with `tls_termination`?",
    503: "the enclave is not ready, or busy: try again",
}
