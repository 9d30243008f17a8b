"""Platform configuration registers of an image, as the Nitro hypervisor computes them.

``SHA384(48 zero bytes ‖ SHA384(x))`` over payloads alone: PCR0 kernel, command line and all
ramdisks; PCR1 kernel, command line and the boot ramdisk; PCR2 the other ramdisks; PCR8 the DER of
the signing certificate. A section that is not there is nothing at all. Header, metadata and
signature are in no register.
"""

import dataclasses
import hashlib
import os
import pathlib
from typing import Self

from cloister.build.eif import signature
from cloister.build.eif.layout import Kind
from cloister.build.eif.pipeline import Pipeline
from cloister.build.eif.read import Eif, open_eif


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pcrs:
    """The registers that an image decides, 48 bytes each.

    Args:
        pcr0: The whole image.
        pcr1: Kernel and boot.
        pcr2: The application.
        pcr8: The signing certificate; ``None``: the image is not signed.
    """

    pcr0: bytes
    pcr1: bytes
    pcr2: bytes
    pcr8: bytes | None

    def registers(self) -> dict[int, bytes]:
        """Index and value of each register."""
        signed = {} if self.pcr8 is None else {8: self.pcr8}
        return {0: self.pcr0, 1: self.pcr1, 2: self.pcr2} | signed

    def shown(self) -> dict[str, str]:
        """Name and hexadecimal value of each register, as in ``enclave.toml``."""
        return {f"PCR{index}": value.hex() for index, value in self.registers().items()}


class Measuring:
    """Registers of payloads that pass by, in the order of the sections."""

    def __init__(self) -> None:
        self._whole = hashlib.sha384()
        self._boot: hashlib._Hash | None = None
        self._application = hashlib.sha384()
        self._has_boot = False

    def start(self, kind: Kind) -> "list[hashlib._Hash]":
        """The digests that the payload of the next section goes into, each in full."""
        if kind in (Kind.KERNEL, Kind.CMDLINE):
            return [self._whole]
        if kind is Kind.RAMDISK:
            if not self._has_boot:
                self._has_boot = True
                return [self._whole]
            if self._boot is None:
                # The boot part is where the whole begins, so it is hashed once.
                self._boot = self._whole.copy()
            return [self._whole, self._application]
        return []

    def pcrs(self, certificate: bytes | None) -> Pcrs:
        """The registers of what passed, signed with this certificate (DER) or not at all."""
        return Pcrs(
            pcr0=extended(self._whole.digest()),
            pcr1=extended((self._boot or self._whole).digest()),
            pcr2=extended(self._application.digest()),
            pcr8=None if certificate is None else register(certificate),
        )

    @classmethod
    def of(cls, image: Eif) -> Self:
        """Measures the sections of an image."""
        measuring = cls()
        for section in image.sections:
            digests = measuring.start(section.kind)
            if not digests:
                continue
            with Pipeline([digest.update for digest in digests]) as pipeline:
                for at in range(0, section.size, _BLOCK):
                    pipeline.put(section.payload[at : at + _BLOCK])
        return measuring


def measure(image: Eif | str | os.PathLike[str]) -> Pcrs:
    """The registers of an image.

    Args:
        image: An open image, or the path of one.

    Raises:
        MissingInput: There is no such file.
        MalformedImage: It is not an EIF, or its signature is not one of this image: a hypervisor
            refuses to start it, so it has no registers.
    """
    if not isinstance(image, Eif):
        with open_eif(pathlib.Path(image)) as opened:
            return measure(opened)
    measuring = Measuring.of(image)
    section = image.signature
    if section is None:
        return measuring.pcrs(None)
    unsigned = measuring.pcrs(None)
    verified = signature.verify(bytes(section.payload), unsigned.pcr0)
    return measuring.pcrs(verified.certificate_der)


def register(value: bytes) -> bytes:
    """A register that ``value`` was measured into once."""
    return extended(hashlib.sha384(value).digest())


def extended(digest: bytes) -> bytes:
    """A zero register, extended by a digest."""
    return hashlib.sha384(bytes(PCR_BYTES) + digest).digest()


PCR_BYTES = 48
_BLOCK = 4 << 20
