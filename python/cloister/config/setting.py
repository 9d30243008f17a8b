"""One setting: its name in the file, what values it takes, and the table type it lives in.

A :class:`Kind` turns a raw TOML value into the value the program works with, or raises
:class:`Mismatch`, which knows what was expected and found but not where: the loader adds the place.
Reading twice is harmless, so a table made in Python is checked by the same rules as a file.
"""

import base64
import binascii
import dataclasses
import re
import uuid
from collections.abc import Callable
from typing import Any, ClassVar, cast

from cloister.errors import ConfigError


class Mismatch(Exception):
    """A value is not of its kind.

    Args:
        expected: What was expected, as a noun phrase.
        found: What was there, safe to print.
        hint: What to do about it.
        at: Index of the list item that is meant, when it is one.
    """

    def __init__(
        self, expected: str, found: str, *, hint: str | None = None, at: int | None = None
    ) -> None:
        super().__init__(f"expected {expected}, found {found}")
        self.expected = expected
        self.found = found
        self.hint = hint
        self.at = at


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """What a setting takes.

    Args:
        expected: What it takes, as a noun phrase.
        read: Raw value to value; raises :class:`Mismatch`.
        table: The table type, when it is a table.
        shorthand: Key of the table that a plain string stands for.
        is_many: It is a list of such tables.
    """

    expected: str
    read: Callable[[Any], Any]
    table: type["Table"] | None = None
    shorthand: str | None = None
    is_many: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One key of the file.

    Args:
        key: Its name there.
        field: Its name in Python.
        kind: What it takes.
        is_required: Without it, the file is refused.
        default: Its value when the file does not name it.
    """

    key: str
    field: str
    kind: Kind
    is_required: bool
    default: Any


class Table:
    """Base of every table: its values are checked when it is made."""

    __slots__ = ()
    title: ClassVar[str]

    def __post_init__(self) -> None:
        for setting in settings(type(self)):
            value = getattr(self, setting.field)
            if value == setting.default and not setting.is_required:
                continue
            try:
                object.__setattr__(self, setting.field, setting.kind.read(value))
            except Mismatch as wrong:
                raise ConfigError(f"`{setting.key}`: {wrong}", hint=wrong.hint) from None


def setting(kind: Kind, *, default: Any = ..., key: str | None = None) -> Any:  # noqa: ANN401
    """A dataclass field that is a setting.

    Args:
        kind: What it takes.
        default: Its value when the file does not name it; without one, the file must.
        key: Its name in the file, when that is not the field's.
    """
    extra: dict[str, Any] = {} if default is ... else {"default": default}
    return dataclasses.field(metadata={"kind": kind, "key": key}, **extra)


def settings(table: type[Table]) -> list[Setting]:
    """The settings of a table type, in order."""
    return [
        Setting(
            key=field.metadata["key"] or field.name,
            field=field.name,
            kind=field.metadata["kind"],
            is_required=field.default is dataclasses.MISSING,
            default=None if field.default is dataclasses.MISSING else field.default,
        )
        for field in dataclasses.fields(cast("Any", table))
        if "kind" in field.metadata
    ]


def shown(value: object) -> str:
    """A raw value for a message: short, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        cut = value if len(value) <= LONGEST_SHOWN else value[:LONGEST_SHOWN] + "…"
        return f"the text {cut!r}"
    if isinstance(value, int | float):
        return str(value)[:LONGEST_SHOWN]
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return "a table" if isinstance(value, dict) else f"a {type(value).__name__}"


def boolean() -> Kind:
    """``true`` or ``false``."""

    def read(value: Any) -> bool:  # noqa: ANN401 - whatever the file holds
        if not isinstance(value, bool):
            hint = "true and false are written without quotes" if isinstance(value, str) else None
            raise Mismatch("true or false", shown(value), hint=hint)
        return value

    return Kind("true or false", read)


def integer(least: int, most: int, unit: str = "") -> Kind:
    """A whole number from ``least`` to ``most``, in ``unit``."""
    expected = f"a whole number{' of ' + unit if unit else ''} from {least} to {most}"

    def read(value: Any) -> int:  # noqa: ANN401
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            hint = None
            if isinstance(value, str) and unit:
                hint = f"write the number of {unit}, without quotes and without a unit"
            raise Mismatch(expected, shown(value), hint=hint)
        return value

    return Kind(expected, read)


def text(pattern: str, expected: str, *, hint: str | None = None) -> Kind:
    """Text that matches ``pattern`` whole."""
    whole = re.compile(pattern)

    def read(value: Any) -> str:  # noqa: ANN401
        if not isinstance(value, str) or not whole.fullmatch(value):
            raise Mismatch(expected, shown(value), hint=hint)
        return value

    return Kind(expected, read)


def checked_text(expected: str, problem: Callable[[str], str | None]) -> Kind:
    """Text that a function has no objection to.

    Args:
        expected: What it takes.
        problem: What is wrong with a text, as a hint; ``None``: nothing.
    """

    def read(value: Any) -> str:  # noqa: ANN401
        if not isinstance(value, str):
            raise Mismatch(expected, shown(value))
        objection = problem(value)
        if objection is not None:
            raise Mismatch(expected, shown(value), hint=objection)
        return value

    return Kind(expected, read)


def choice(*values: str) -> Kind:
    """One of these texts."""
    expected = "one of " + ", ".join(f'"{value}"' for value in values)

    def read(value: Any) -> str:  # noqa: ANN401
        if not isinstance(value, str) or value not in values:
            raise Mismatch(expected, shown(value))
        return value

    return Kind(expected, read)


def identity() -> Kind:
    """A uuid."""
    expected = "a uuid, as in 0d5a2a8e-6a51-4f3b-bf0f-4d8c3f0a9e33"

    def read(value: Any) -> uuid.UUID:  # noqa: ANN401
        if isinstance(value, uuid.UUID):
            return value
        if not isinstance(value, str) or not _UUID.fullmatch(value):
            raise Mismatch(expected, shown(value), hint="`cloister init` writes it")
        return uuid.UUID(value)

    return Kind(expected, read)


def size(least: int, most: int) -> Kind:
    """A number of bytes, or text such as ``1GiB``."""
    expected = 'a size such as "512MiB" or "1GiB", or a number of bytes'

    def read(value: Any) -> int:  # noqa: ANN401
        found = _SIZE.fullmatch(value) if isinstance(value, str) else None
        number = int(found[1]) * _UNITS[found[2] or ""] if found else value
        if isinstance(number, bool) or not isinstance(number, int):
            raise Mismatch(expected, shown(value))
        if not least <= number <= most:
            raise Mismatch(f"a size from {as_size(least)} to {as_size(most)}", shown(value))
        return number

    return Kind(expected, read)


def many(item: Kind, *, least: int = 0, most: int) -> Kind:
    """A list of ``least`` to ``most`` items, none of them twice."""
    expected = f"a list of {least} to {most}, each {item.expected}"

    def read(value: Any) -> tuple[Any, ...]:  # noqa: ANN401
        if not isinstance(value, list | tuple):
            raise Mismatch(expected, shown(value))
        if not least <= len(value) <= most:
            raise Mismatch(f"a list of {least} to {most}", shown(value))
        items: list[Any] = []
        for at, raw in enumerate(value):
            try:
                read_item = item.read(raw)
            except Mismatch as wrong:
                raise Mismatch(wrong.expected, wrong.found, hint=wrong.hint, at=at) from None
            if read_item in items:
                raise Mismatch("each item once", f"{shown(raw)} twice", at=at)
            items.append(read_item)
        return tuple(items)

    return Kind(expected, read)


def base64_key() -> Kind:
    """32 bytes in base64, standard alphabet, padded."""
    expected = "an Ed25519 public key: 32 bytes in standard base64 with padding"

    def read(value: Any) -> str:  # noqa: ANN401
        if not isinstance(value, str):
            raise Mismatch(expected, shown(value))
        try:
            key = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        # Base64 leaves bits unused: only one spelling of a key is right, as it is measured.
        if len(key) != KEY_BYTES or base64.b64encode(key).decode() != value:
            raise Mismatch(expected, shown(value), hint="`cloister init` writes it")
        return value

    return Kind(expected, read)


def table(of: type[Table], *, shorthand: str | None = None) -> Kind:
    """A table.

    Args:
        of: Its type.
        shorthand: Key of the table that a plain string stands for.
    """

    def read(value: Any) -> Table | None:  # noqa: ANN401
        if value is not None and not isinstance(value, of):
            raise Mismatch(f"a {of.__name__}", f"a {type(value).__name__}")
        return value

    return Kind("a table", read, table=of, shorthand=shorthand)


def tables(of: type[Table]) -> Kind:
    """A list of tables, each under a heading of its own: ``[[name]]``."""

    def read(value: Any) -> tuple[Table, ...]:  # noqa: ANN401
        if not isinstance(value, list | tuple) or not all(isinstance(one, of) for one in value):
            raise Mismatch(f"a list of {of.__name__}", f"a {type(value).__name__}")
        return tuple(value)

    return Kind("tables", read, table=of, is_many=True)


def as_size(number: int) -> str:
    """A number of bytes as people write it: the largest unit that divides it."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if number and number % _UNITS[unit] == 0:
            return f"{number // _UNITS[unit]}{unit}"
    return str(number)


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SIZE = re.compile(r"([0-9]{1,15}) ?([KMGT]iB|[kKMGT]B|B)?", re.ASCII)
_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40} | {
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
KEY_BYTES = 32
LONGEST_SHOWN = 60
