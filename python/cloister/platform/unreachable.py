"""Why a platform could not be asked: what urllib3 and ssl raise, as a sentence and what to do.

Nothing here waits, connects or trusts: a name of this program's caller is repeated, and nothing
that the other side sent. Codes of certificates are those of OpenSSL (X509_verify_cert_error_string
(3)).
"""

import dataclasses
import enum
import socket
import ssl
from collections.abc import Iterator

from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.exceptions import TimeoutError as Overdue


class Kind(enum.Enum):
    """What trying again can do about it."""

    ABSENT = enum.auto()
    """Nobody is there: a server that starts again is, within seconds."""
    LASTING = enum.auto()
    """It is so until somebody changes something."""
    OVERDUE = enum.auto()
    """It took too long, for all that is known."""
    PASSING = enum.auto()
    """A connection broke."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why an attempt failed.

    Args:
        kind: What trying again can do.
        was_not_sent: The server did nothing: there was no connection.
        message: What is so, as the end of a sentence.
        hint: What to do about it.
    """

    kind: Kind
    was_not_sent: bool
    message: str
    hint: str | None


def cause_of(problem: Exception, *, host: str) -> Cause:
    """Says why an attempt failed.

    Args:
        problem: What urllib3, ssl or the system raised.
        host: Whom the caller named.
    """
    chain = list(_chain(problem))
    for one in chain:
        if isinstance(one, ssl.SSLCertVerificationError):
            return _certificate(one, host=host)
    was_not_sent = isinstance(problem, NewConnectionError | ConnectTimeoutError)
    if any(isinstance(one, NameResolutionError | socket.gaierror) for one in chain):
        kind = Kind.ABSENT
        message = f"the name `{host}` is not known to this machine"
        hint: str | None = ADDRESS_HINT
    elif any(isinstance(one, ConnectionRefusedError) for one in chain):
        kind, message = Kind.ABSENT, "the connection is refused, so nothing listens there"
        hint = "`cloister platform serve` does, once it is started; are address and port right?"
    elif isinstance(problem, NewConnectionError):
        kind, message = Kind.ABSENT, f"there is no connection: {_of_system(chain)}"
        hint = ADDRESS_HINT
    elif isinstance(problem, Overdue | TimeoutError):
        kind, message = Kind.OVERDUE, "it did not answer in time"
        hint = "it is busy, or something on the way drops what is sent; is the address right?"
    elif any(isinstance(one, ssl.SSLError) for one in chain):
        kind, message = Kind.PASSING, "what listens there does not speak TLS as it is spoken here"
        hint = "is the port that of `cloister platform serve`?"
    else:
        kind, message, hint = Kind.PASSING, f"the connection broke: {_of_system(chain)}", None
    return Cause(kind=kind, was_not_sent=was_not_sent, message=message, hint=hint)


def _certificate(problem: ssl.SSLCertVerificationError, *, host: str) -> Cause:
    if problem.verify_code in OTHER_NAME:
        message = f"its certificate is for other names than `{host}`"
        hint = "`cloister platform init --name` says which the certificate is for"
    elif problem.verify_code in OTHER_TIME:
        message = "its certificate has expired, or is not valid yet"
        hint = "is the clock of this machine right?"
    else:
        message = "its certificate is not of an authority that is believed"
        hint = "CLOISTER_PLATFORM_CA names the authority of a platform that has its own"
    return Cause(kind=Kind.LASTING, was_not_sent=True, message=message, hint=hint)


def _chain(problem: BaseException) -> Iterator[BaseException]:
    """The error, and those that it was made of."""
    waiting: list[object] = [problem]
    for _ in range(MAX_CHAIN):
        if not waiting:
            return
        one = waiting.pop(0)
        if isinstance(one, BaseException):
            yield one
            waiting += [getattr(one, "reason", None), one.__cause__, one.__context__, *one.args]


def _of_system(chain: list[BaseException]) -> str:
    said = (one.strerror for one in chain if isinstance(one, OSError) and one.strerror)
    return next(said, type(chain[0]).__name__).lower()


ADDRESS_HINT = "CLOISTER_PLATFORM_URL, --platform-url or `url` of host.toml is its address"
OTHER_NAME = frozenset({62, 63, 64})  # X509_V_ERR_HOSTNAME_, EMAIL_ and IP_ADDRESS_MISMATCH
OTHER_TIME = frozenset({9, 10})  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
MAX_CHAIN = 64
