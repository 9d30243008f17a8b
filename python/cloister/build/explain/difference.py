"""Where two images differ: the section, the file, the attribute, and which registers it touches.

PCR0 covers kernel, command line and every ramdisk; PCR1 kernel, command line and the boot ramdisk;
PCR2 the other ramdisks; PCR8 the signing certificate. Header and metadata are in none.
"""

import dataclasses
import hashlib
import json
import stat
from collections.abc import Iterator
from typing import Any

from cloister.build.eif import Eif, Kind, Section, metadata, signature
from cloister.build.eif.measure import Measuring, Pcrs
from cloister.build.explain.contents import Contents, Item, contents
from cloister.build.rootfs import shown
from cloister.errors import MalformedImage


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that is not the same.

    Args:
        section: ``header``, ``kernel``, ``cmdline``, ``metadata``, ``signature``, ``ramdisk 0``, …
        path: The file; empty: the section itself.
        what: The attribute: ``content``, ``mode``, ``owner``, ``time``, ``link``, ``kind``,
            ``hard links``, ``added``, ``removed``, or a key of a JSON file.
        first: What the first image has; ``None``: nothing.
        second: What the second has.
        pcrs: Registers that it touches.
    """

    section: str
    path: str = ""
    what: str
    first: str | None
    second: str | None
    pcrs: tuple[str, ...]

    def described(self) -> dict[str, Any]:
        """One object with stable keys."""
        return dataclasses.asdict(self) | {"pcrs": list(self.pcrs)}


def difference(first: Eif, second: Eif) -> list[Change]:
    """Everything in which two images differ, in the order of the format.

    Raises:
        MalformedImage: A ramdisk of one of them cannot be read.
    """
    found = list(_header(first, second))
    for kind in (Kind.KERNEL, Kind.CMDLINE):
        found += _blob(kind, first.one(kind), second.one(kind))
    found += _metadata(first, second)
    with contents(first) as one, contents(second) as other:
        for number in range(max(len(one), len(other))):
            found += _ramdisk(
                number,
                (first.ramdisks[number], one[number]) if number < len(one) else None,
                (second.ramdisks[number], other[number]) if number < len(other) else None,
            )
    found += _signature(first, second)
    return found


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


def _blob(kind: Kind, first: Section | None, second: Section | None) -> Iterator[Change]:
    name = kind.name.lower()
    if first is None or second is None:
        if first is not second:
            what = "added" if first is None else "removed"
            yield Change(
                section=name,
                what=what,
                first=None if first is None else _hash(first.payload),
                second=None if second is None else _hash(second.payload),
                pcrs=_BOOT,
            )
    elif first.payload != second.payload:
        if kind is Kind.CMDLINE:
            one, other = shown(bytes(first.payload)), shown(bytes(second.payload))
        else:
            one, other = _hash(first.payload), _hash(second.payload)
        yield Change(section=name, what="content", first=one, second=other, pcrs=_BOOT)


def _metadata(first: Eif, second: Eif) -> Iterator[Change]:
    one, other = first.one(Kind.METADATA), second.one(Kind.METADATA)
    flat = [_flat_metadata(section) for section in (one, other)]
    yield from _keys("metadata", "", flat[0], flat[1], ())


def _flat_metadata(section: Section | None) -> dict[str, str]:
    if section is None:
        return {}
    try:
        return _flat(metadata.decode(section.payload))
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
    elif one is not None and other is not None and one.payload != other.payload:
        yield Change(
            section="signature",
            what="content",
            first=_hash(one.payload),
            second=_hash(other.payload),
            pcrs=(),
        )


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
        there = first or second
        yield Change(
            section=name,
            what="added" if first is None else "removed",
            first=None if first is None else _hash(first[0].payload),
            second=None if second is None else _hash(second[0].payload),
            pcrs=pcrs if there else (),
        )
        return
    if first[0].payload == second[0].payload:
        return
    changes = list(_files(name, first[1].items, second[1].items, pcrs))
    yield from changes
    if not changes:
        # The same files in other bytes: the archives are written in another way.
        yield Change(
            section=name,
            what="archive (order, inode numbers, padding or compression; no file)",
            first=_hash(first[0].payload),
            second=_hash(second[0].payload),
            pcrs=pcrs,
        )


def _files(
    section: str, first: dict[bytes, Item], second: dict[bytes, Item], pcrs: tuple[str, ...]
) -> Iterator[Change]:
    for path in sorted(first.keys() | second.keys()):
        one, other = first.get(path), second.get(path)
        if one is not None and other is not None:
            yield from _item(section, one, other, pcrs)
        else:
            yield Change(
                section=section,
                path=shown(path),
                what="added" if one is None else "removed",
                first=None if one is None else _shown_item(one),
                second=None if other is None else _shown_item(other),
                pcrs=pcrs,
            )


def _item(section: str, one: Item, other: Item, pcrs: tuple[str, ...]) -> Iterator[Change]:
    path = shown(one.path)

    def change(what: str, first: str, second: str) -> Change:
        return Change(section=section, path=path, what=what, first=first, second=second, pcrs=pcrs)

    if one.kind != other.kind:
        yield change("kind", one.kind, other.kind)
        return
    if one.data != other.data:
        if one.kind == "link":
            yield change("link", shown(bytes(one.data)), shown(bytes(other.data)))
        else:
            inner = _json_keys(section, path, one, other, pcrs)
            yield from inner or [
                change("content", _shown_data(one, other), _shown_data(other, one))
            ]
    if stat.S_IMODE(one.mode) != stat.S_IMODE(other.mode):
        yield change("mode", f"{stat.S_IMODE(one.mode):04o}", f"{stat.S_IMODE(other.mode):04o}")
    if (one.uid, one.gid) != (other.uid, other.gid):
        yield change("owner", f"{one.uid}:{one.gid}", f"{other.uid}:{other.gid}")
    if one.mtime != other.mtime:
        yield change("time", str(one.mtime), str(other.mtime))
    if one.names != other.names:
        yield change(
            "hard links",
            ", ".join(shown(name) for name in one.names),
            ", ".join(shown(name) for name in other.names),
        )


def _json_keys(
    section: str, path: str, one: Item, other: Item, pcrs: tuple[str, ...]
) -> list[Change]:
    """Changes of what the enclave is told about itself, key by key."""
    if path not in TOLD or max(len(one.data), len(other.data)) > MAX_TOLD_BYTES:
        return []
    try:
        flat = [_flat(json.loads(bytes(item.data))) for item in (one, other)]
    except (ValueError, RecursionError):
        return []
    return list(_keys(section, path, flat[0], flat[1], pcrs))


def _keys(
    section: str, path: str, first: dict[str, str], second: dict[str, str], pcrs: tuple[str, ...]
) -> Iterator[Change]:
    for name in sorted(first.keys() | second.keys()):
        if first.get(name) != second.get(name):
            yield Change(
                section=section,
                path=path,
                what=f"`{name}`",
                first=first.get(name),
                second=second.get(name),
                pcrs=pcrs,
            )


def _flat(value: Any, at: str = "") -> dict[str, str]:  # noqa: ANN401 - any JSON
    """A JSON value as one text for each leaf, by its path."""
    if isinstance(value, dict) and (value or not at):
        found: dict[str, str] = {}
        for key, inner in value.items():
            found |= _flat(inner, f"{at}.{key}" if at else str(key))
        return found
    return {at or "(whole)": json.dumps(value, ensure_ascii=False, sort_keys=True)}


def _shown_data(one: Item, other: Item) -> str:
    """Digest and length of a file, and where it starts to differ."""
    return (
        f"sha256 {hashlib.sha256(one.data).hexdigest()}, {len(one.data)} bytes,"
        f" first difference at {_first_difference(one.data, other.data)}"
    )


def _first_difference(one: memoryview, other: memoryview) -> int:
    shorter = min(len(one), len(other))
    at = 0
    while at < shorter and one[at : at + BLOCK_BYTES] == other[at : at + BLOCK_BYTES]:
        at += BLOCK_BYTES
    while at < shorter and one[at] == other[at]:
        at += 1
    return min(at, shorter)


def _shown_item(item: Item) -> str:
    return f"{item.kind}, {stat.filemode(item.mode)} {item.uid}:{item.gid}, {len(item.data)} bytes"


def _hash(payload: memoryview) -> str:
    return f"sha384 {hashlib.sha384(payload).hexdigest()}, {len(payload)} bytes"


def _sha256(data: bytes | None) -> str | None:
    return None if data is None else f"sha256 {hashlib.sha256(data).hexdigest()}"


_BOOT = ("PCR0", "PCR1")
_APPLICATION = ("PCR0", "PCR2")
TOLD = ("cloister/config.json", "cloister/process.json")
MAX_TOLD_BYTES = 1 << 20
BLOCK_BYTES = 1 << 16
