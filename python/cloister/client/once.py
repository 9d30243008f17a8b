"""One document, fetched and verified: what ``cloister attest`` does."""

import dataclasses
import datetime as dt
from collections.abc import Callable

from cloister import attest as _attest
from cloister.client.attestor import utc_now
from cloister.client.enclave_url import EnclaveUrl
from cloister.client.fetch import Fetcher


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Attested:
    """A document that verified.

    Args:
        claims: What it proved.
        document: The ``COSE_Sign1``.
        spki: The TLS key it is bound to, which is the one of the connection it came over.
    """

    claims: _attest.Claims
    document: bytes
    spki: bytes


def attest(  # noqa: PLR0913 - each is a setting of its own, by keyword
    enclave: str,
    policy: _attest.Policy,
    *,
    ca_file: str | None = None,
    nonce: bytes | None = None,
    timeout_seconds: float = 15.0,
    clock: Callable[[], dt.datetime] = utc_now,
) -> Attested:
    """Fetches an enclave's document and verifies it, bound to the connection it came over.

    Args:
        enclave: ``https://HOST[:PORT]``.
        policy: What is accepted.
        ca_file: Certificates that may sign the enclave's.
        nonce: 16 to 512 bytes that the document must be made for.
        timeout_seconds: For the whole fetch.
        clock: The verifier's time.

    Raises:
        UsageError: Not such a URL.
        TransportError: The document could not be had.
        AttestationError: It is refused.
    """
    fetcher = Fetcher(
        enclave=EnclaveUrl.parse(enclave), ca_file=ca_file, timeout_seconds=timeout_seconds
    )
    fetched = fetcher.fetch(nonce=nonce)
    claims = _attest.verify(
        fetched.document, policy, now=clock(), nonce=nonce, user_data=fetched.spki
    )
    return Attested(claims=claims, document=fetched.document, spki=fetched.spki)
