"""Reads a TOML file against table types: checked values, or an error with its place.

What a file may hold is said by :class:`~cloister.config.setting.Table` types, so every file that
Cloister reads is as strict, and says as exactly what is wrong.
"""

import difflib
import pathlib
import re
import tomllib
from typing import Any, NoReturn

from cloister.config import position
from cloister.config.setting import Mismatch, Setting, Table, settings, shown
from cloister.errors import ConfigError, MissingInput


def text_of(file: pathlib.Path, *, missing_hint: str) -> str:
    """The text of a configuration file.

    Args:
        file: The file.
        missing_hint: What to do when there is none.

    Raises:
        MissingInput: There is no such file.
        ConfigError: It cannot be read, is longer than :data:`MAX_BYTES`, or is not UTF-8.
    """
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise MissingInput(f"`{file}` does not exist", hint=missing_hint) from None
    except OSError as problem:
        raise ConfigError(f"`{file}` cannot be read: {problem.strerror}") from problem
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"`{file}` is longer than {MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        column = problem.start - (raw.rfind(b"\n", 0, problem.start) + 1) + 1
        raise ConfigError(
            f"{file}:{line}:{column}: expected UTF-8, found the byte 0x{raw[problem.start]:02x}",
            hint="save the file as UTF-8",
        ) from None


class Reader:
    """One text.

    Args:
        name: What messages call it.
        text: The text.
        root: Type of the whole file.
        example: File that shows every setting.

    Raises:
        ConfigError: It is not TOML.
    """

    def __init__(self, name: str, text: str, root: type[Table], *, example: str) -> None:
        # Line ends as an editor writes them elsewhere; tomllib counts columns after this too.
        text = text.replace("\r\n", "\n")
        try:
            self.raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as problem:
            raise _syntax_error(name, text, str(problem), example) from None
        self._name = name
        self._root = root
        self._places = position.positions(text)

    def values(self) -> dict[str, Any]:
        """Checked values of the root table, by field.

        Raises:
            ConfigError: A setting is unknown, missing or wrong.
        """
        return self._values(self._root, self.raw, ())

    def fail(self, at: position.Path, message: str, hint: str | None) -> NoReturn:
        """Says that something is wrong at a place.

        Raises:
            ConfigError: Always.
        """
        while at and at not in self._places:
            at = at[:-1]
        line, column = self._places.get(at, (1, 1))
        raise ConfigError(f"{self._name}:{line}:{column}: {message}", hint=hint)

    def _values(self, table: type[Table], raw: dict[str, Any], at: position.Path) -> dict[str, Any]:
        known = {setting.key: setting for setting in settings(table)}
        for key in raw:
            if key not in known:
                self._unknown(key, table, at)
        for setting in known.values():
            if setting.is_required and setting.key not in raw:
                where = f"`{_heading(at)}`" if at else "the file"
                self.fail(
                    at, f"{where} lacks `{setting.key}`: expected {setting.kind.expected}", None
                )
        return {
            known[key].field: self._value(known[key], value, (*at, key))
            for key, value in raw.items()
        }

    def _value(self, setting: Setting, value: Any, at: position.Path) -> Any:  # noqa: ANN401
        kind = setting.kind
        if kind.table is not None and kind.is_many:
            return self._tables(kind.table, value, at)
        if kind.table is not None:
            if kind.shorthand is not None and isinstance(value, str):
                value = {kind.shorthand: value}
            if not isinstance(value, dict):
                expected = "a table" if kind.shorthand is None else "a path or a table"
                self.fail(at, f"`{'.'.join(at)}`: expected {expected}, found {shown(value)}", None)
            return kind.table(**self._values(kind.table, value, at))
        try:
            return kind.read(value)
        except Mismatch as wrong:
            place = at if wrong.at is None else (*at, str(wrong.at))
            item = "" if wrong.at is None else f"[{wrong.at}]"
            self.fail(place, f"`{'.'.join(at)}{item}`: {wrong}", wrong.hint)

    def _tables(self, of: type[Table], value: Any, at: position.Path) -> tuple[Table, ...]:  # noqa: ANN401
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            self.fail(
                at, f"`{at[-1]}`: expected tables, `[[{at[-1]}]]`, found {shown(value)}", None
            )
        return tuple(
            of(**self._values(of, one, (*at, str(number)))) for number, one in enumerate(value)
        )

    def _unknown(self, key: str, table: type[Table], at: position.Path) -> NoReturn:
        names = [setting.key for setting in settings(table)]
        where = f"in `{_heading(at)}`" if at else "at the top"
        home = _elsewhere(key, table, self._root)
        near = difflib.get_close_matches(key.lower(), [name.lower() for name in names], n=1)
        if home:
            hint = home
        elif near:
            nearest = next(name for name in names if name.lower() == near[0])
            hint = f"did you mean `{nearest}`?"
        else:
            hint = f"known {where}: {', '.join(names)}"
        self.fail((*at, key), f"unknown setting {key[:80]!r} {where}", hint)


def _elsewhere(key: str, wrong: type[Table], root: type[Table]) -> str | None:
    """The table that a key belongs to, when it stands in another."""
    for setting in settings(root):
        inner = setting.kind.table
        if inner is None and setting.key == key:
            return f"`{key}` stands at the top, before the first table"
        if inner not in (None, wrong) and any(each.key == key for each in settings(inner)):
            heading = f"[[{setting.key}]]" if setting.kind.is_many else f"[{setting.key}]"
            return f"`{key}` belongs in `{heading}`"
    return None


def _heading(at: position.Path) -> str:
    """The heading of a table, as the file has it."""
    if at[-1].isdigit():
        return f"[[{'.'.join(at[:-1])}]]"
    return f"[{'.'.join(at)}]"


def _syntax_error(name: str, text: str, problem: str, example: str) -> ConfigError:
    found = re.search(r"\s*\(at (?:line ([0-9]+), column ([0-9]+)|end of document)\)$", problem)
    message = problem[: found.start()] if found else problem
    if found and found[1]:
        line, column = int(found[1]), int(found[2])
    else:
        line, column = text.count("\n") + 1, len(text) - (text.rfind("\n") + 1) + 1
    return ConfigError(
        f"{name}:{line}:{column}: expected TOML: {message[:1].lower()}{message[1:]}",
        hint=f"text stands in double quotes; {example} shows every setting",
    )


MAX_BYTES = 1 << 20
"""Longest file read, in bytes."""
