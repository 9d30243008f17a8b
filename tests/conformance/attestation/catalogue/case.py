"""One case: what goes in, what must come out, why, and which case differs in this one thing."""

import base64
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import cbor2
from tests.conformance.attestation.forge import certificates, documents
from tests.conformance.attestation.forge.certificates import Chain
from tests.conformance.attestation.forge.documents import Document

HOUR = certificates.HOUR
NOW = certificates.NOW


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """What the verifier insists on; ``measurements`` are sets of hex by index, or ``"any"``."""

    measurements: Any = dataclasses.field(default_factory=lambda: [{"0": documents.PCR0.hex()}])
    max_age_ms: int = 3 * HOUR
    leeway_ms: int = 60_000
    accept_debug: bool = False
    nonce: bytes | None = None
    user_data: bytes | None = None

    def as_json(self) -> dict[str, Any]:
        """As the contract has it."""
        return dataclasses.asdict(self) | {
            "nonce": _base64(self.nonce),
            "user_data": _base64(self.user_data),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """``code`` is ``None`` for a document that is accepted."""

    name: str
    says: str
    rule: str
    document: bytes
    root: bytes
    time_ms: int = NOW
    policy: Policy = dataclasses.field(default_factory=Policy)
    code: str | None = None
    twin: str | None = None

    def as_json(self) -> dict[str, Any]:
        """As it stands in a file."""
        verdict: dict[str, Any] = {"verdict": "refuse", "code": self.code}
        if self.code is None:
            verdict = {"verdict": "accept", "claims": claims(self.document)}
        return {
            "id": self.name,
            "says": self.says,
            "rule": self.rule,
            "twin": self.twin,
            "input": {
                "document": _base64(self.document),
                "root": _base64(self.root),
                "time_ms": self.time_ms,
                "policy": self.policy.as_json(),
            },
            "expected": verdict,
        }


def claims(document: bytes) -> dict[str, Any]:
    """What an accepted document proves, read with a library that is not the project's."""
    parts = cbor2.loads(document)
    payload = cbor2.loads((parts.value if isinstance(parts, cbor2.CBORTag) else parts)[2])
    registers = sorted(payload["pcrs"].items())
    return {
        "module_id": payload["module_id"],
        "timestamp_ms": payload["timestamp"],
        "is_debug": not any(payload["pcrs"][0]),
        "pcrs": {str(index): value.hex() for index, value in registers},
        "public_key": _base64(payload["public_key"]),
        "user_data": _base64(payload["user_data"]),
        "nonce": _base64(payload["nonce"]),
    }


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


class Room:
    """The cases of one file; the first is the document that is right in everything."""

    def __init__(self, room: str) -> None:
        self._room = room
        self.root = certificates.chain().root
        self.cases: list[Case] = []
        self.accept("right", "the document that the others differ from", "S1")

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def accept(
        self, name: str, says: str, rule: str, document: bytes | None = None, **more: Any
    ) -> None:
        """A document that a verifier must accept."""
        self._add(name, says, rule, document, more)

    def refuse(
        self, name: str, says: str, rule: str, code: str, document: bytes | None = None, **more: Any
    ) -> None:
        """A document that it must refuse, for this reason."""
        self._add(name, says, rule, document, {"code": code, "twin": "right"} | more)

    def _add(
        self, name: str, says: str, rule: str, document: bytes | None, more: dict[str, Any]
    ) -> None:
        if more.get("twin"):
            more["twin"] = f"{self._room}/{more['twin']}"
        self.cases.append(
            Case(
                name=f"{self._room}/{name}",
                says=says,
                rule=rule,
                document=right().encode() if document is None else document,
                **({"root": self.root} | more),
            )
        )


def right() -> Document:
    """A new document to change."""
    return documents.document(certificates.chain())


def with_field(name: str, value: bytes) -> bytes:
    """The right document with another value in one field, signed."""
    changed = right()
    changed.fields[name] = value
    return changed.encode()


def with_chain(change: Callable[[Chain], object], *, timestamp: int = NOW) -> bytes:
    """The right document around a chain that is wrong in one place."""
    chain = certificates.chain()
    change(chain)
    return documents.document(chain, timestamp=timestamp).encode()
