"""Verification of attestation documents, and the simulated NSM, in Rust.

Times are milliseconds since the Unix epoch. Every call leaves the interpreter while it computes.
"""

from os import PathLike
from typing import TypedDict, final, type_check_only

__all__ = ["Policy", "SimulatedNsm", "decode", "subject_public_key_info", "verify"]

@type_check_only
class ClaimsDict(TypedDict):
    """What a document proved."""

    module_id: str
    timestamp_ms: int
    pcrs: dict[int, bytes]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None
    is_debug: bool
    certificate_not_after_ms: int

@type_check_only
class DecodedDict(TypedDict):
    """What a document says; nothing of it is checked but its form."""

    module_id: str
    timestamp_ms: int
    pcrs: dict[int, bytes]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None
    is_debug: bool
    certificates: list[tuple[bytes, int, int]]
    """DER, first and last moment of each certificate: root first, leaf last."""

@final
class Policy:
    """What a document must prove.

    Args:
        measurements: Accepted sets, each a list of register index and value of 48 bytes.
        root_der: Another root than the pinned one of AWS.
        max_age_ms: Oldest document accepted.
        leeway_ms: How far clocks may differ.
        dangerous_accept_debug: Accept an enclave in debug mode.
        dangerous_any_measurement: Accept any registers; ``measurements`` is then empty.

    Raises:
        cloister.errors.PolicyError: The policy would accept anything, or nothing.
    """

    def __new__(
        cls,
        measurements: list[list[tuple[int, bytes]]],
        *,
        root_der: bytes | None = None,
        max_age_ms: int,
        leeway_ms: int,
        dangerous_accept_debug: bool = False,
        dangerous_any_measurement: bool = False,
    ) -> Policy: ...

def verify(
    document: bytes,
    policy: Policy,
    *,
    now_ms: int,
    nonce: bytes | None = None,
    user_data: bytes | None = None,
) -> ClaimsDict:
    """Verifies a document; raises the leaf of ``AttestationError`` that says why it is refused."""

def decode(document: bytes) -> DecodedDict:
    """Reads a document and believes nothing; raises ``MalformedDocument``."""

def subject_public_key_info(certificate: bytes) -> bytes:
    """The DER ``SubjectPublicKeyInfo`` of a DER certificate; raises ``ValueError``."""

@final
class SimulatedNsm:
    """The NSM of one simulated enclave, for development and tests.

    Args:
        pcrs: Values of 48 bytes at boot; the other registers are zero. PCR 0 to 15 are locked.
        module_id: Id of the enclave.
        now_ms: When it boots.
        root_dir: Folder of the development root, which is made there when there is none; without
            it the root lives as long as this object.

    Raises:
        ValueError: A value is not 48 bytes long.
        cloister.errors.RunnerError: The root cannot be read or made, an index is above 31, or the
            id is too long.
    """

    def __new__(
        cls,
        pcrs: list[tuple[int, bytes]],
        *,
        module_id: str,
        now_ms: int,
        root_dir: str | PathLike[str] | None = None,
    ) -> SimulatedNsm: ...
    @property
    def root_der(self) -> bytes:
        """The development root in DER."""

    @property
    def root_pem(self) -> str:
        """The development root in PEM."""

    def document(
        self,
        *,
        now_ms: int,
        user_data: bytes | None = None,
        nonce: bytes | None = None,
        public_key: bytes | None = None,
    ) -> bytes:
        """An attestation document; raises ``ValueError`` when the NSM refuses, with its code."""

    def handle(self, request: bytes, *, now_ms: int) -> bytes:
        """Answers one request of the NSM protocol, in CBOR."""

    def another(
        self, pcrs: list[tuple[int, bytes]], *, module_id: str, now_ms: int
    ) -> SimulatedNsm:
        """The module of another enclave under the same root; raises as the class."""

    def forge(
        self,
        *,
        now_ms: int,
        timestamp_ms: int,
        module_id: str,
        pcrs: list[tuple[int, bytes]],
        user_data: bytes | None = None,
        nonce: bytes | None = None,
        public_key: bytes | None = None,
    ) -> bytes:
        """A document that says this, signed with the chain of ``now_ms``; no limit holds.

        Raises:
            ValueError: A register is not 48 bytes long.
            cloister.errors.RunnerError: The system gives no entropy.
        """

    def tell_truth(self) -> None:
        """Documents say what is so again."""

    def tell_bytes(self, document: bytes) -> None:
        """In place of every document without a public key come these bytes."""

    def tell_fields(self, *, user_data: bytes | None = None, nonce: bytes | None = None) -> None:
        """Documents without a public key carry these in place of what was asked for."""

    def tell_error(self, code: str) -> None:
        """Documents without a public key are refused with this code of the NSM.

        Raises:
            ValueError: There is no such code.
        """
