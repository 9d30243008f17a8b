"""Where two images differ: the section, the file, the attribute, and which registers it touches.

PCR0 covers kernel, command line and every ramdisk; PCR1 kernel, command line and the boot ramdisk;
PCR2 the other ramdisks; PCR8 the signing certificate. Header and metadata are in none.
"""

import dataclasses
import hashlib
from collections.abc import Iterator

from cloister.build.eif import Eif, Kind, Section, metadata, signature
from cloister.build.eif.measure import Measuring, Pcrs
from cloister.build.explain.change import Change
from cloister.build.explain.contents import Contents, contents, is_same
from cloister.build.explain.files import changed_files
from cloister.build.explain.keys import changed_keys, flat
from cloister.build.explain.names import spelled
from cloister.build.explain.packages import PackageChange, packages
from cloister.errors import MalformedImage


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Everything in which two images differ.

    Args:
        changes: In the order of the format, files by the bytes of their path.
        packages: Packages whose lists say that they came, went or have another version.
    """

    changes: list[Change]
    packages: list[PackageChange]


def difference(first: Eif, second: Eif) -> Difference:
    """Everything in which two images differ; nothing: header and sections are the same, to the bit.

    Raises:
        MalformedImage: A ramdisk of one of them cannot be read.
    """
    found = list(_header(first, second))
    for kind in (Kind.KERNEL, Kind.CMDLINE):
        found += _blob(kind, first.one(kind), second.one(kind))
    found += _metadata(first, second)
    listed: list[PackageChange] = []
    with contents(first) as one, contents(second) as other:
        for number in range(max(len(one), len(other))):
            found += _ramdisk(
                number,
                (first.ramdisks[number], one[number]) if number < len(one) else None,
                (second.ramdisks[number], other[number]) if number < len(other) else None,
            )
            if number < min(len(one), len(other)):
                listed += packages(one[number].items, other[number].items)
    found += _signature(first, second)
    return Difference(changes=found, packages=listed)


def registers(image: Eif) -> dict[str, str]:
    """Name and value of the registers of an image, its signature believed."""
    section = image.signature
    certificate = None if section is None else _certificate(section)
    measured: Pcrs = Measuring.of(image).pcrs(certificate)
    return measured.shown()


def _header(first: Eif, second: Eif) -> Iterator[Change]:
    for what in ("architecture", "default_memory", "default_cpus"):
        one, other = getattr(first, what), getattr(second, what)
        if one != other:
            yield Change(section="header", what=what, first=str(one), second=str(other), pcrs=())
    orders = [
        ", ".join(section.kind.name.lower() for section in image.sections)
        for image in (first, second)
    ]
    # Otherwise a section came or went, which is told at its place.
    if orders[0] != orders[1] and sorted(orders[0].split()) == sorted(orders[1].split()):
        yield Change(section="header", what="order", first=orders[0], second=orders[1], pcrs=())


def _blob(kind: Kind, first: Section | None, second: Section | None) -> Iterator[Change]:
    name = kind.name.lower()
    if first is None or second is None:
        yield from _presence(name, first, second, _BOOT)
    elif not is_same(first.payload, second.payload):
        if kind is Kind.CMDLINE:
            one, other = spelled(bytes(first.payload)), spelled(bytes(second.payload))
        else:
            one, other = _hash(first.payload), _hash(second.payload)
        yield Change(section=name, what="content", first=one, second=other, pcrs=_BOOT)


def _presence(
    name: str, first: Section | None, second: Section | None, pcrs: tuple[str, ...]
) -> Iterator[Change]:
    """A section that one of the images lacks, if one does."""
    if (first is None) != (second is None):
        yield Change(
            section=name,
            what="added" if first is None else "removed",
            first=None if first is None else _hash(first.payload),
            second=None if second is None else _hash(second.payload),
            pcrs=pcrs,
        )


def _content(
    name: str, what: str, first: Section, second: Section, pcrs: tuple[str, ...]
) -> Change:
    return Change(
        section=name,
        what=what,
        first=_hash(first.payload),
        second=_hash(second.payload),
        pcrs=pcrs,
    )


def _metadata(first: Eif, second: Eif) -> Iterator[Change]:
    one, other = first.one(Kind.METADATA), second.one(Kind.METADATA)
    if one is None or other is None:
        yield from _presence("metadata", one, other, ())
        return
    if is_same(one.payload, other.payload):
        return
    changes = list(changed_keys("metadata", "", _flat_metadata(one), _flat_metadata(other), ()))
    yield from changes or [_content("metadata", "content (order or space, no key)", one, other, ())]


def _flat_metadata(section: Section) -> dict[str, str]:
    try:
        return flat(metadata.decode(section.payload))
    except MalformedImage:
        return {"(not JSON)": _hash(section.payload)}


def _signature(first: Eif, second: Eif) -> Iterator[Change]:
    one, other = first.signature, second.signature
    if one is None and other is None:
        return
    certificates = [None if section is None else _certificate(section) for section in (one, other)]
    if certificates[0] != certificates[1]:
        yield Change(
            section="signature",
            what="certificate",
            first=_sha256(certificates[0]),
            second=_sha256(certificates[1]),
            pcrs=("PCR8",),
        )
    elif one is None or other is None:
        # It is there and has no certificate that could be read.
        yield from _presence("signature", one, other, ())
    elif not is_same(one.payload, other.payload):
        yield _content("signature", "content", one, other, ())


def _certificate(section: Section) -> bytes | None:
    """DER of the certificate in a signature; ``None``: it cannot be read."""
    try:
        return signature.certificate_in(bytes(section.payload))
    except MalformedImage:
        return None


def _ramdisk(
    number: int, first: tuple[Section, Contents] | None, second: tuple[Section, Contents] | None
) -> Iterator[Change]:
    name = f"ramdisk {number}"
    pcrs = _BOOT if number == 0 else _APPLICATION
    if first is None or second is None:
        yield from _presence(name, first and first[0], second and second[0], pcrs)
        return
    if is_same(first[0].payload, second[0].payload):
        return
    changes = list(changed_files(name, first[1].items, second[1].items, pcrs))
    yield from changes
    if not changes:
        # The same files in other bytes: the archives are written in another way.
        yield _content(name, ARCHIVE, first[0], second[0], pcrs)


def _hash(payload: memoryview) -> str:
    return f"sha384 {hashlib.sha384(payload).hexdigest()}, {len(payload)} bytes"


def _sha256(data: bytes | None) -> str | None:
    return None if data is None else f"sha256 {hashlib.sha256(data).hexdigest()}"


ARCHIVE = "archive (order, inode or device numbers, padding or compression; no file)"
_BOOT = ("PCR0", "PCR1")
_APPLICATION = ("PCR0", "PCR2")
