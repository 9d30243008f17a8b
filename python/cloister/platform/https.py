"""Requests to a platform's server: TLS to a pinned authority, deadlines, and its errors as ours.

urllib3 carries them: it comes with `requests`, so a host needs no extra, and its pool is safe for
threads. Nothing is redirected, nothing is unpacked, an answer is bounded before it is read: by its
length, and in time by :mod:`~cloister.platform.deadline_socket`. The token is in a header, and in
no message.
"""

import json
import pathlib
import random
import ssl
import threading
import time
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from cloister import errors
from cloister.errors import (
    CloisterError,
    ConfigError,
    MissingInput,
    PermissionRefused,
    TransportError,
)
from cloister.platform.deadline_socket import DeadlineSocket
from cloister.platform.unreachable import Kind, cause_of


class PlatformClient:
    """A connection to one platform. Its methods may be called from any thread.

    Args:
        url: ``https://HOST[:PORT]``.
        token: ``cp_…``, of ``cloister platform token create``.
        ca_file: The authority to believe, PEM, and no other; those of the system when absent.
        absence_s: How long a call tries again where nobody is, in seconds: its connection is
            refused, or the name unknown. As long as its deadline, when absent.

    Raises:
        ConfigError: Not such a URL, no token, or the file is not a certificate.
        MissingInput: The file cannot be read.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        ca_file: pathlib.Path | None = None,
        absence_s: float | None = None,
    ) -> None:
        self._url = _checked(url)
        self._host = urlsplit(self._url).hostname or ""
        self._absence_s = absence_s
        if not (token.isascii() and token.isprintable() and token) or " " in token:
            raise ConfigError(
                "there is no token for the platform, or it cannot be one",
                hint="CLOISTER_API_KEY holds a token of `cloister platform token create`",
            )
        self._headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
        self._closed = threading.Event()
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except ssl.SSLError:
            raise ConfigError(f"`{ca_file}` is not a certificate in PEM", hint=CA_HINT) from None
        except OSError as problem:
            raise MissingInput(
                f"`{ca_file}` cannot be read: {problem.strerror}", hint=CA_HINT
            ) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2

        class OwnSocket(DeadlineSocket):
            """One of this client's."""

        context.sslsocket_class = OwnSocket
        self._end_calls = OwnSocket.end_all
        self._pool = urllib3.PoolManager(ssl_context=context, maxsize=POOL_SIZE, retries=False)

    def __repr__(self) -> str:
        return f"PlatformClient({self._url!r})"

    @property
    def url(self) -> str:
        """Where the platform is."""
        return self._url

    def get(self, path: str, *, deadline_s: float = 15.0, **query: object) -> Any:  # noqa: ANN401
        """Asks for something; an answer without a body is ``None``."""
        given = {name: value for name, value in query.items() if value is not None}
        address = f"{path}?{urlencode(given)}" if given else path
        return self._call("GET", address, None, deadline_s=deadline_s, may_repeat=True)

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        deadline_s: float = 15.0,
        may_repeat: bool = False,
    ) -> Any:  # noqa: ANN401 - any JSON
        """Asks for a change.

        Args:
            method: ``POST``, ``PUT``, ``PATCH`` or ``DELETE``.
            path: From ``/v1/`` on; parts that others chose come through :func:`part`.
            body: JSON.
            deadline_s: All attempts together end by then, in seconds.
            may_repeat: Try again when it is unknown whether the platform did it. Without, only a
                connection that was never made is.

        Raises:
            CloisterError: What the platform says; :class:`PermissionRefused` when the token does
                not permit it, :class:`TransportError` when it cannot be reached in time.
        """
        return self._call(method, path, body, deadline_s=deadline_s, may_repeat=may_repeat)

    def close(self) -> None:
        """Ends waits between attempts and calls in flight, and closes what is idle."""
        self._closed.set()
        self._end_calls()
        self._pool.clear()

    def _call(
        self, method: str, path: str, body: object, *, deadline_s: float, may_repeat: bool
    ) -> Any:  # noqa: ANN401
        begun = time.monotonic()
        absence_s = deadline_s if self._absence_s is None else min(self._absence_s, deadline_s)
        pause_s = FIRST_PAUSE_SECONDS
        earlier: _Again | None = None
        while True:
            left_s = begun + deadline_s - time.monotonic()
            try:
                return self._once(method, path, body, left_s=left_s)
            except _Again as problem:
                is_cut_short = problem.kind is Kind.OVERDUE and left_s < CUT_SHORT_SECONDS
                # One that had no time to connect says nothing; the one before says why. One that
                # was sent is told as it is: the platform may have done it.
                says_nothing = is_cut_short and problem.was_not_sent
                told = earlier if earlier is not None and says_nothing else problem
                limit_s = absence_s if told.kind is Kind.ABSENT else deadline_s
                is_over = begun + limit_s - time.monotonic() <= pause_s or self._closed.is_set()
                can_help = told.kind is not Kind.LASTING and (may_repeat or problem.was_not_sent)
                if is_over or not can_help:
                    raise told.error from told.__cause__
                earlier = told
            # Hosts that lost the same platform must not come back at the same moment.
            self._closed.wait(pause_s * random.uniform(0.5, 1))  # noqa: S311 - no secret
            pause_s = min(2 * pause_s, LONGEST_PAUSE_SECONDS)

    def _once(self, method: str, path: str, body: object, *, left_s: float) -> Any:  # noqa: ANN401
        headers, content = dict(self._headers), None
        if body is not None:
            headers["content-type"] = "application/json"
            content = json.dumps(body).encode()
        left_s = max(left_s, SHORTEST_SECONDS)
        try:
            answer = self._pool.request(
                method,
                self._url + path,
                body=content,
                headers=headers,
                timeout=urllib3.Timeout(connect=min(left_s, CONNECT_SECONDS), total=left_s),
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            read = self._read(answer)
        except (HTTPError, OSError) as problem:
            cause = cause_of(problem, host=self._host)
            error = TransportError(
                f"the platform {self._url} cannot be reached: {cause.message}", hint=cause.hint
            )
            raise _Again(error, kind=cause.kind, was_not_sent=cause.was_not_sent) from problem
        return self._judged(answer.status, read)

    def _read(self, answer: urllib3.BaseHTTPResponse) -> bytes:
        """The whole body. A connection goes back to the pool at the end of its answer alone."""
        try:
            read = answer.read(MAX_ANSWER_BYTES + 1)
            if len(read) > MAX_ANSWER_BYTES:
                raise TransportError(f"the platform {self._url} answers with more than is read")
        except BaseException:
            answer.close()
            raise
        answer.release_conn()
        return read

    def _judged(self, status: int, read: bytes) -> Any:  # noqa: ANN401
        try:
            found = json.loads(read) if read else None
        except (ValueError, RecursionError):
            found = None
        if status == NO_CONTENT:
            return None
        if 200 <= status < 300:  # noqa: PLR2004 - RFC 9110, 15.3
            if found is None:
                # A head that breaks off looks like one without a body to the reader below.
                raise TransportError(f"the answer of the platform {self._url} is not JSON")
            return found
        error = _error(status, found, self._url)
        if status in TRY_AGAIN:
            raise _Again(error, kind=Kind.PASSING, was_not_sent=False)
        raise error


def part(text: object) -> str:
    """Text of others as one part of a path."""
    return quote(str(text), safe="")


class _Again(Exception):
    """An attempt failed, and another may not."""

    def __init__(self, error: CloisterError, *, kind: Kind, was_not_sent: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.kind = kind
        self.was_not_sent = was_not_sent


def _checked(url: str) -> str:
    wrong = ConfigError("the platform's address is not https://HOST[:PORT]")
    try:
        parts = urlsplit(url)
        has_place = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise wrong from None
    more = (parts.username, parts.password, parts.query, parts.fragment)
    if parts.scheme != "https" or not has_place or any(more):
        raise wrong
    if parts.path not in {"", "/"}:
        raise ConfigError(
            "the platform's address is not https://HOST[:PORT]: there is a path behind it",
            hint="a platform has the whole of its address, and its calls begin at `/v1/`",
        )
    return f"https://{parts.netloc}"


def _error(status: int, found: object, url: str) -> CloisterError:
    """The error that the platform names, of our own classes; its text is made printable."""
    body = found.get("error") if isinstance(found, dict) else None
    if not isinstance(body, dict):
        return TransportError(f"the platform {url} answers with status {status}")
    said = [_printable(body.get(name)) for name in ("code", "message", "hint")]
    code, message, hint = said
    if status in {401, 403} and code in {"Unauthenticated", "Forbidden"}:
        return PermissionRefused(message or "the platform refuses the token", hint=hint)
    kind = getattr(errors, code or "", None)
    if not (isinstance(kind, type) and issubclass(kind, CloisterError) and code not in OWN_SHAPE):
        kind = TransportError
    return kind(message or f"the platform answers with status {status}", hint=hint)


def _printable(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    return "".join(char if char.isprintable() else "�" for char in value[:MAX_SAID])


CA_HINT = "CLOISTER_PLATFORM_CA, or `ca` of host.toml, names the authority to believe"
OWN_SHAPE = frozenset({"BuildFailed"})  # made with more than a message and a hint
NO_CONTENT = 204  # RFC 9110, 15.3.5
TRY_AGAIN = frozenset({502, 503, 504})
POOL_SIZE = 32
CONNECT_SECONDS = 5.0
SHORTEST_SECONDS = 0.1
CUT_SHORT_SECONDS = 1.0
ABSENCE_SECONDS = 3.0
"""How long somebody who waits for a command is kept where nobody is: a server starts in less."""
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 3.0
MAX_ANSWER_BYTES = 8 << 20
MAX_SAID = 1000
