"""What the host needs from others: the platform, a certificate authority, a sink for events.

Typed by structure. Whoever implements one of these imports nothing of the host, and the host
imports none of them. The host trusts none with anything it could read: bundles come sealed.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol


class Platform(Protocol):
    """What the owner trusts; in this process, or behind HTTPS. Calls may block."""

    def issue_challenge(self, enclave_uuid: uuid.UUID) -> bytes:
        """Makes a challenge of 32 bytes for one use by this enclave."""

    def provision(self, enclave_uuid: uuid.UUID, document: bytes, now: dt.datetime) -> bytes:
        """Verifies the document and returns the first bundle, sealed to the key in it.

        Raises:
            CloisterError: The platform does not release to this document.
        """

    def newer_bundle(
        self, enclave_uuid: uuid.UUID, after: int, *, boot_key: bytes, now: dt.datetime
    ) -> bytes | None:
        """Returns a bundle for this boot when its version is above ``after`` or renewal is due.

        Args:
            enclave_uuid: Which enclave.
            after: Version the enclave has.
            boot_key: X25519 public key of a boot that was released to.
            now: Clock of the caller.

        Raises:
            CloisterError: Nothing is released to this boot any more.
        """

    def wait_for_change(self, enclave_uuid: uuid.UUID, after: int, timeout_s: float) -> bool:
        """Waits up to ``timeout_s`` seconds for a version above ``after``.

        It may return early: the caller asks for the bundle again in any case.
        """

    def record_object(  # noqa: PLR0913 - the parts of one head
        self,
        enclave_uuid: uuid.UUID,
        *,
        boot_key: bytes,
        name: str,
        version: int,
        sha256: bytes,
        proof: bytes,
    ) -> bool:
        """Records which sealed object is the current one of its name.

        Returns:
            Whether it is recorded; ``False``: another one is, as new or newer.

        Raises:
            CloisterError: The platform does not take it from this boot.
        """


class ActiveDeployment(Protocol):
    """An image that the platform releases to."""

    @property
    def id(self) -> str:
        """Its id at the platform."""

    @property
    def pcrs(self) -> Mapping[int, bytes]:
        """The registers it must have."""


class HostPlatform(Protocol):
    """What a host asks of the platform for itself, beside what it carries for its enclaves."""

    def active_deployments(self, enclave_uuid: uuid.UUID) -> Sequence[ActiveDeployment]:
        """What is to run of an enclave, the newest first.

        Raises:
            TransportError: The platform cannot be reached.
            CloisterError: It refuses to say.
        """

    def record_event(self, enclave_uuid: uuid.UUID, kind: str, message: str) -> None:
        """Tells the platform what happened to an enclave.

        Raises:
            CloisterError: It does not take it.
        """

    def close(self) -> None:
        """Ends waits; a call in flight ends within its own deadline."""


class CertificateAuthority(Protocol):
    """Who signs the enclave's TLS certificate. Calls may block, for minutes with ACME."""

    def issue(self, csr: bytes, domains: Sequence[str], *, now: dt.datetime) -> str:
        """Signs a certificate for ``domains``.

        Args:
            csr: PKCS#10 request, DER.
            domains: DNS names; empty in local runs.
            now: Clock of the caller.

        Returns:
            The chain in PEM, leaf first.

        Raises:
            CloisterError: The request is refused; the message says why.
        """


EventSink = Callable[[uuid.UUID, str, str], None]
"""Takes enclave, kind and message of an event; the text is bounded and printable."""

Clock = Callable[[], dt.datetime]
"""The current time, with a zone."""


def utc_now() -> dt.datetime:
    """The clock of this machine."""
    return dt.datetime.now(dt.UTC)
