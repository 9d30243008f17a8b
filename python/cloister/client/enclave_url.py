"""Where an enclave is: the origin of an ``https`` URL, in one spelling."""

import dataclasses
import urllib.parse
from typing import Self

from cloister.errors import PolicyError, UsageError


@dataclasses.dataclass(frozen=True, slots=True)
class EnclaveUrl:
    """Host and port of an enclave.

    Args:
        host: Lower case, without a trailing dot or brackets.
        port: TCP port.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The origin ``https://HOST[:PORT]``; a path of ``/`` is fine, anything else is not.

        Raises:
            UsageError: Not such a URL.
        """
        parts = _split(text)
        if parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise UsageError(f"an enclave is named by its origin alone, got {text!r:.100}")
        return cls._of(parts, text)

    @classmethod
    def origin_of(cls, url: str) -> Self:
        """The origin of any ``https`` URL.

        Raises:
            UsageError: Not ``https``, or no host.
        """
        return cls._of(_split(url), url)

    @classmethod
    def _of(cls, parts: urllib.parse.SplitResult, text: str) -> Self:
        if parts.scheme.lower() != "https" or not parts.hostname:
            raise UsageError(f"an enclave is reached over https, got {text!r:.100}")
        if parts.username is not None or parts.password is not None:
            raise UsageError("a URL of an enclave has no user name or password")
        try:
            port = parts.port
        except ValueError:
            raise UsageError(f"the port is not a number up to 65535 in {text!r:.100}") from None
        return cls(parts.hostname.lower().rstrip("."), 443 if port is None else port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}" if self.port == HTTPS else f"https://{host}:{self.port}"


def not_an_enclave(url: str, owner: str, *, hint: str) -> PolicyError:
    """The refusal to talk to whom nobody named; the message has the origin, whatever the URL is."""
    try:
        origin = str(EnclaveUrl.origin_of(url))
    except UsageError:
        origin = repr(url.partition("?")[0][:100])
    return PolicyError(
        f"refused to talk to {origin}: it is not an enclave of this {owner}", hint=hint
    )


def _split(text: str) -> urllib.parse.SplitResult:
    try:
        return urllib.parse.urlsplit(text)
    except ValueError:
        raise UsageError(f"not a URL: {text!r:.100}") from None


HTTPS = 443
