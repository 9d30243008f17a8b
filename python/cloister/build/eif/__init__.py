"""Enclave Image Files (EIF), version 4: write, read, measure, sign.

The layout is that of aws-nitro-enclaves-image-format; ``docs/spec/eif.md`` has it to the byte.
"""

from cloister.build.eif.layout import Kind
from cloister.build.eif.measure import Pcrs, measure
from cloister.build.eif.read import Eif, Section, open_eif
from cloister.build.eif.signature import SigningPair, VerifiedSignature
from cloister.build.eif.write import Payload, write

__all__ = [
    "Eif",
    "Kind",
    "Payload",
    "Pcrs",
    "Section",
    "SigningPair",
    "VerifiedSignature",
    "measure",
    "open_eif",
    "write",
]
