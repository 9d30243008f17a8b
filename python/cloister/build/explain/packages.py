"""Which packages came, went or have another version, as the files of two images say.

Only lists that differ are read, and only what package managers write is known: ``METADATA`` of
Python, the databases of dpkg and apk, ``package.json`` below ``node_modules``. What they say is
somebody's word: it explains files, and is not checked against them.
"""

import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any

from cloister.build.explain.contents import Item
from cloister.build.explain.names import spelled


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PackageChange:
    """A package that is not the same.

    Args:
        manager: ``Python``, ``Debian``, ``Alpine`` or ``npm``.
        name: Of the package.
        folder: Where it is installed, or its database.
        first: Version in the first image; ``None``: it is not there.
        second: Version in the second.
    """

    manager: str
    name: str
    folder: str
    first: str | None
    second: str | None

    def described(self) -> dict[str, Any]:
        """One object with stable keys."""
        return dataclasses.asdict(self)


def packages(first: dict[bytes, Item], second: dict[bytes, Item]) -> list[PackageChange]:
    """Packages that differ between the files of two images, sorted."""
    before, after = _versions(first, second), _versions(second, first)
    return [
        PackageChange(
            manager=manager,
            name=name,
            folder=folder,
            first=before.get((manager, folder, name)),
            second=after.get((manager, folder, name)),
        )
        for manager, folder, name in sorted(before.keys() | after.keys())
        if before.get((manager, folder, name)) != after.get((manager, folder, name))
    ]


def _versions(
    items: dict[bytes, Item], others: dict[bytes, Item]
) -> dict[tuple[str, str, str], str]:
    """Versions by manager, folder and name, of what the other image has not in the same way."""
    found: dict[tuple[str, str, str], str] = {}
    for path, item in items.items():
        matched = _LIST.fullmatch(path)
        if matched is None or item.kind != "file" or len(item.data) > MAX_LIST_BYTES:
            continue
        other = others.get(path)
        if other is not None and other.kind == "file" and other.data == item.data:
            continue
        manager = str(matched.lastgroup)
        folder = spelled(matched["folder"].rstrip(b"/"))
        text = bytes(item.data).decode("utf-8", "replace")
        for name, version in _READERS[manager](text):
            found[manager, folder, name[:MAX_WORD]] = version[:MAX_WORD]
    return found


def _of_python(text: str) -> Iterator[tuple[str, str]]:
    head = text.partition("\n\n")[0]
    yield from _paragraphs(head, "Name: ", "Version: ")


def _of_debian(text: str) -> Iterator[tuple[str, str]]:
    yield from _paragraphs(text, "Package: ", "Version: ")


def _of_alpine(text: str) -> Iterator[tuple[str, str]]:
    yield from _paragraphs(text, "P:", "V:")


def _of_npm(text: str) -> Iterator[tuple[str, str]]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(found, dict):
        name, version = found.get("name"), found.get("version")
        if isinstance(name, str) and isinstance(version, str):
            yield name, version


def _paragraphs(text: str, name: str, version: str) -> Iterator[tuple[str, str]]:
    """The two fields of each paragraph that has both."""
    for paragraph in text.split("\n\n"):
        fields = {
            field: line.removeprefix(field).strip()
            for line in paragraph.splitlines()
            for field in (name, version)
            if line.startswith(field)
        }
        if len(fields) == len((name, version)):
            yield fields[name], fields[version]


_READERS = {"Python": _of_python, "Debian": _of_debian, "Alpine": _of_alpine, "npm": _of_npm}
_LIST = re.compile(
    rb"(?P<folder>(?:[^\0]*/)?)(?:"
    rb"(?P<Python>[^/]+\.(?:dist-info/METADATA|egg-info/PKG-INFO))"
    rb"|(?P<Debian>var/lib/dpkg/status(?:\.d/[^/]+)?)"
    rb"|(?P<Alpine>(?:usr/)?lib/apk/db/installed)"
    rb"|(?P<npm>(?<=node_modules/)(?:@[^/]+/)?[^/]+/package\.json)"
    rb")"
)
MAX_LIST_BYTES = 16 << 20
MAX_WORD = 100
