"""What a host asks of the owner's platform: the only calls that cross that line.

The host carries the answers and can read none of them: challenges are random, bundles are sealed to
a key that the enclave proved by attestation. :class:`~cloister.platform.embedded.EmbeddedPlatform`
answers in this process, :class:`~cloister.platform.remote.RemotePlatform` over HTTPS.

Follows wire.md, sections 3 and 5.
"""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable
from uuid import UUID


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ActiveDeployment:
    """An image that is released to now.

    Args:
        id: ``dep_…``.
        pcrs: The registers it must have, 48 bytes each: 0, 1 and 2, and others that were given.
    """

    id: str
    pcrs: Mapping[int, bytes]


@runtime_checkable
class Platform(Protocol):
    """Releases secrets to attested enclaves. Every method may be called from any thread."""

    def issue_challenge(self, enclave_uuid: UUID | str) -> bytes:
        """Makes a challenge: 32 random bytes, valid once, for 60 s, for this enclave alone.

        Raises:
            ReleaseRefused: There is no such enclave, or it has too many open challenges.
        """

    def provision(
        self, enclave_uuid: UUID | str, document: bytes, now: dt.datetime | None = None
    ) -> bytes:
        """Checks an attestation document and seals a bundle to the key in it.

        Args:
            enclave_uuid: The enclave that asks, known by the host from where the stream came from.
            document: ``COSE_Sign1``, raw bytes.
            now: The platform's time; its own clock when absent.

        Raises:
            ReleaseRefused: A check of wire.md §3 does not hold; the message says which.
        """

    def newer_bundle(
        self,
        enclave_uuid: UUID | str,
        after: int,
        *,
        boot_key: bytes | None = None,
        now: dt.datetime | None = None,
    ) -> bytes | None:
        """Seals the current bundle to a boot that was provisioned, when it needs one.

        It needs one when its version is newer than ``after``, or when the bundle it got last has
        passed half of its life.

        Args:
            enclave_uuid: The enclave that asks.
            after: Version the enclave has.
            boot_key: X25519 key of the boot; the boot provisioned last when absent, which is
                right for a host with one enclave of this name.
            now: The platform's time; its own clock when absent.

        Returns:
            The sealed bundle, or ``None``: there is nothing newer.

        Raises:
            ReleaseRefused: No such enclave or boot, or its deployment is not active any more.
        """

    def wait_for_change(self, enclave_uuid: UUID | str, after: int, timeout_s: float) -> bool:
        """Blocks until the enclave's version is above ``after``, or for ``timeout_s`` seconds.

        Returns:
            Whether there is a newer version. ``False`` says nothing about renewal: call
            :meth:`newer_bundle` after it in either case.

        Raises:
            ReleaseRefused: There is no such enclave.
        """

    def active_deployments(self, enclave_uuid: UUID | str) -> Sequence[ActiveDeployment]:
        """What a host is to run of an enclave: its active deployments, the newest first.

        Raises:
            ReleaseRefused: There is no such enclave.
        """

    def record_object(  # noqa: PLR0913 - the parts of one head
        self,
        enclave_uuid: UUID | str,
        *,
        boot_key: bytes,
        name: str,
        version: int,
        sha256: bytes,
        proof: bytes,
    ) -> bool:
        """Records that a sealed object is the current one of its name (wire.md §3).

        Args:
            enclave_uuid: The enclave that asks.
            boot_key: X25519 key of the boot.
            name: The object's whole name.
            version: Version it was sealed as.
            sha256: Of the sealed object, 32 bytes.
            proof: Shows that an enclave of the boot's image says so.

        Returns:
            Whether it is recorded; ``False``: another one is, as new or newer.

        Raises:
            InputError: A field is out of its bounds.
            ReleaseRefused: No such enclave or boot, its deployment is not active any more, or the
                proof is not that of an enclave of its image.
        """
