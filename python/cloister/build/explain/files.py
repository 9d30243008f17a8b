"""Where the files of two ramdisks differ: which, and in which attribute."""

import hashlib
import json
import stat
from collections.abc import Iterator

from cloister.build.explain.change import Change
from cloister.build.explain.contents import Item, is_same
from cloister.build.explain.keys import changed_keys, flat
from cloister.build.explain.names import spelled
from cloister.build.explain.reason import reason


def changed_files(
    section: str, first: dict[bytes, Item], second: dict[bytes, Item], pcrs: tuple[str, ...]
) -> Iterator[Change]:
    """Changes of every file, by the bytes of its path.

    Args:
        section: The ramdisk.
        first: Its files in the first image, by path.
        second: Its files in the second.
        pcrs: Registers that the ramdisk is in.
    """
    for path in sorted(first.keys() | second.keys()):
        one, other = first.get(path), second.get(path)
        if one is not None and other is not None:
            yield from _item(section, one, other, pcrs)
        else:
            yield Change(
                section=section,
                path=spelled(path),
                what="added" if one is None else "removed",
                first=None if one is None else _told(one),
                second=None if other is None else _told(other),
                pcrs=pcrs,
            )


def _item(section: str, one: Item, other: Item, pcrs: tuple[str, ...]) -> Iterator[Change]:
    path = spelled(one.path)

    def change(what: str, first: str, second: str, note: str | None = None) -> Change:
        return Change(
            section=section,
            path=path,
            what=what,
            first=first,
            second=second,
            pcrs=pcrs,
            note=note,
        )

    if one.kind != other.kind:
        yield change("kind", one.kind, other.kind)
        return
    if not is_same(one.data, other.data):
        if one.kind == "link":
            yield change("link", spelled(bytes(one.data)), spelled(bytes(other.data)))
        else:
            inner = _json_keys(section, path, one, other, pcrs)
            yield from inner or [
                change("content", _digest(one), _digest(other), reason(one.data, other.data))
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
            ", ".join(spelled(name) for name in one.names),
            ", ".join(spelled(name) for name in other.names),
        )


def _json_keys(
    section: str, path: str, one: Item, other: Item, pcrs: tuple[str, ...]
) -> list[Change]:
    """Changes of what the enclave is told about itself, key by key."""
    if path not in TOLD or max(len(one.data), len(other.data)) > MAX_TOLD_BYTES:
        return []
    try:
        first, second = (flat(json.loads(bytes(item.data))) for item in (one, other))
    except (ValueError, RecursionError):
        return []
    return list(changed_keys(section, path, first, second, pcrs))


def _digest(item: Item) -> str:
    return f"sha256 {hashlib.sha256(item.data).hexdigest()}, {len(item.data)} bytes"


def _told(item: Item) -> str:
    size = f", {len(item.data)} bytes" if item.kind == "file" else ""
    return f"{item.kind}, {stat.filemode(item.mode)} {item.uid}:{item.gid}{size}"


TOLD = ("cloister/config.json", "cloister/process.json")
MAX_TOLD_BYTES = 1 << 20
