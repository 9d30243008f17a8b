"""Reads ``enclave.toml``, strictly: a whole, checked configuration or an error with its place."""

import difflib
import pathlib
import re
import tomllib
from typing import Any, NoReturn

from cloister.config import position
from cloister.config.rules import Violation, check
from cloister.config.schema import VERSION, EnclaveToml
from cloister.config.setting import Mismatch, Setting, Table, settings, shown
from cloister.errors import ConfigError, MissingInput


def load(path: str | pathlib.Path) -> EnclaveToml:
    """Reads a file.

    Args:
        path: The ``enclave.toml``.

    Raises:
        MissingInput: There is no such file.
        ConfigError: It cannot be read, is longer than :data:`MAX_BYTES`, is not TOML, has an
            unknown or wrong setting, or breaks a rule between settings. The message starts with
            file, line and column.
    """
    file = pathlib.Path(path)
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise MissingInput(
            f"`{file}` does not exist",
            hint="`cloister init NAME` makes one; `--config FILE` names another",
        ) from None
    except OSError as problem:
        raise ConfigError(f"`{file}` cannot be read: {problem.strerror}") from problem
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"`{file}` is longer than {MAX_BYTES} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        column = problem.start - (raw.rfind(b"\n", 0, problem.start) + 1) + 1
        raise ConfigError(
            f"{file}:{line}:{column}: expected UTF-8, found the byte 0x{raw[problem.start]:02x}",
            hint="save the file as UTF-8",
        ) from None
    return loads(text, path=file)


def loads(text: str, *, path: pathlib.Path | None = None) -> EnclaveToml:
    """Reads the text of a file.

    Args:
        text: The text.
        path: Where it is from, for messages and for the paths in it.

    Raises:
        ConfigError: As :func:`load`.
    """
    name = str(path) if path else "enclave.toml"
    # Line ends as an editor writes them on another system; tomllib counts columns after this too.
    text = text.replace("\r\n", "\n")
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise _syntax_error(name, text, str(problem)) from None
    return _Reader(name, text).whole(raw, path)


class _Reader:
    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._places = position.positions(text)

    def whole(self, raw: dict[str, Any], path: pathlib.Path | None) -> EnclaveToml:
        self._check_version(raw)
        values = self._values(EnclaveToml, raw, ())
        toml = EnclaveToml(**values, path=path)
        try:
            check(toml)
        except Violation as wrong:
            self._fail(wrong.at, wrong.message, wrong.hint)
        return toml

    def _values(self, table: type[Table], raw: dict[str, Any], at: position.Path) -> dict[str, Any]:
        known = {setting.key: setting for setting in settings(table)}
        for key in raw:
            if key not in known:
                self._unknown(key, table, at)
        for setting in known.values():
            if setting.is_required and setting.key not in raw:
                where = f"`[{'.'.join(at)}]`" if at else "the file"
                self._fail(
                    at, f"{where} lacks `{setting.key}`: expected {setting.kind.expected}", None
                )
        return {
            known[key].field: self._value(known[key], value, (*at, key))
            for key, value in raw.items()
        }

    def _value(self, setting: Setting, value: Any, at: position.Path) -> Any:  # noqa: ANN401
        kind = setting.kind
        if kind.table is not None:
            if kind.shorthand is not None and isinstance(value, str):
                value = {kind.shorthand: value}
            if not isinstance(value, dict):
                expected = "a table" if kind.shorthand is None else "a path or a table"
                self._fail(at, f"`{'.'.join(at)}`: expected {expected}, found {shown(value)}", None)
            return kind.table(**self._values(kind.table, value, at))
        try:
            return kind.read(value)
        except Mismatch as wrong:
            place = at if wrong.at is None else (*at, str(wrong.at))
            item = "" if wrong.at is None else f"[{wrong.at}]"
            self._fail(place, f"`{'.'.join(at)}{item}`: {wrong}", wrong.hint)

    def _check_version(self, raw: dict[str, Any]) -> None:
        version = raw.get("version", VERSION)
        if isinstance(version, int) and not isinstance(version, bool) and version != VERSION:
            self._fail(
                ("version",),
                f"`version` is {version}, this program reads version {VERSION}",
                "version 0 is the hosted product's older format: `cloister init` writes a new file"
                if version < VERSION
                else "a newer cloister wrote this file: update cloister",
            )

    def _unknown(self, key: str, table: type[Table], at: position.Path) -> NoReturn:
        names = [setting.key for setting in settings(table)]
        where = f"in `[{'.'.join(at)}]`" if at else "at the top"
        home = _elsewhere(key, table)
        near = difflib.get_close_matches(key.lower(), [name.lower() for name in names], n=1)
        if home:
            hint = home
        elif near:
            nearest = next(name for name in names if name.lower() == near[0])
            hint = f"did you mean `{nearest}`?"
        else:
            hint = f"known {where}: {', '.join(names)}"
        self._fail((*at, key), f"unknown setting {key[:80]!r} {where}", hint)

    def _fail(self, at: position.Path, message: str, hint: str | None) -> NoReturn:
        while at and at not in self._places:
            at = at[:-1]
        line, column = self._places.get(at, (1, 1))
        raise ConfigError(f"{self._name}:{line}:{column}: {message}", hint=hint)


def _elsewhere(key: str, wrong: type[Table]) -> str | None:
    """The table that a key belongs to, when it stands in another."""
    for setting in settings(EnclaveToml):
        inner = setting.kind.table
        if inner is None and setting.key == key:
            return f"`{key}` stands at the top, before the first table"
        if inner not in (None, wrong) and any(each.key == key for each in settings(inner)):
            return f"`{key}` belongs in `[{setting.key}]`"
    return None


def _syntax_error(name: str, text: str, problem: str) -> ConfigError:
    found = re.search(r"\s*\(at (?:line ([0-9]+), column ([0-9]+)|end of document)\)$", problem)
    message = problem[: found.start()] if found else problem
    if found and found[1]:
        line, column = int(found[1]), int(found[2])
    else:
        line, column = text.count("\n") + 1, len(text) - (text.rfind("\n") + 1) + 1
    return ConfigError(
        f"{name}:{line}:{column}: expected TOML: {message[:1].lower()}{message[1:]}",
        hint="text stands in double quotes; enclave.toml.example shows every setting",
    )


MAX_BYTES = 1 << 20
"""Longest file read, in bytes."""
