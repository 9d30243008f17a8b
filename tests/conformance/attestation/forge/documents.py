"""A document around a chain, right by itself and wrong where a case says so."""

import dataclasses

from tests.conformance.attestation.forge import cbor
from tests.conformance.attestation.forge.certificates import NOW, Chain, Key, fixed, sign

PCR0 = bytes(range(48))
PCR1 = bytes(range(48, 96))
PCR2 = bytes(range(96, 144))
PCR4 = bytes([0x44] * 48)
ZERO = bytes(48)
PROTECTED = cbor.mapping((cbor.integer(1), cbor.integer(-35)))
NONCE = b"the verifier's nonce"
USER_DATA = b"SubjectPublicKeyInfo of a TLS key"


def registers(values: dict[int, bytes]) -> bytes:
    return cbor.mapping(
        *((cbor.integer(index), cbor.data(value)) for index, value in values.items())
    )


@dataclasses.dataclass
class Document:
    """All parts of a document; ``fields`` are encoded values by key."""

    chain: Chain
    fields: dict[str, bytes]
    is_indefinite: bool = True
    protected: bytes = PROTECTED
    unprotected: bytes = cbor.mapping()
    signer: Key | None = None
    payload: bytes | None = None
    """In place of the fields."""

    def encoded_payload(self) -> bytes:
        """What is signed, without the envelope."""
        if self.payload is not None:
            return self.payload
        pairs = [(cbor.text(key), value) for key, value in self.fields.items()]
        if self.is_indefinite:
            return cbor.indefinite(cbor.MAP, *(b"".join(pair) for pair in pairs))
        return cbor.mapping(*pairs)

    def signed(self) -> bytes:
        """``Sig_structure`` (RFC 9052 4.4)."""
        return cbor.array(
            cbor.text("Signature1"),
            cbor.data(self.protected),
            cbor.data(b""),
            cbor.data(self.encoded_payload()),
        )

    def signature(self, *, high: bool = False) -> bytes:
        """``r`` and ``s``; ``high`` for the other of the two."""
        return fixed(sign(self.signer or self.chain.leaf.key, self.signed()), high=high)

    def parts(self) -> list[bytes]:
        """The four of ``COSE_Sign1``, encoded."""
        return [
            cbor.data(self.protected),
            self.unprotected,
            cbor.data(self.encoded_payload()),
            cbor.data(self.signature()),
        ]

    def encode(self) -> bytes:
        """The whole, without a tag."""
        return cbor.array(*self.parts())


def document(chain: Chain, *, timestamp: int = NOW) -> Document:
    """A right document, in the shape of those since 2025-09."""
    values = dict.fromkeys(range(16), ZERO) | {0: PCR0, 1: PCR1, 2: PCR2, 4: PCR4}
    return Document(
        chain,
        {
            "module_id": cbor.text("i-0123456789abcdef0-enc0123456789abcdef"),
            "digest": cbor.text("SHA384"),
            "timestamp": cbor.integer(timestamp),
            "pcrs": registers(values),
            "certificate": cbor.data(chain.leaf.encode()),
            "cabundle": cbor.array(*(cbor.data(one) for one in chain.bundle())),
            "public_key": cbor.NULL,
            "user_data": cbor.data(USER_DATA),
            "nonce": cbor.data(NONCE),
        },
    )
