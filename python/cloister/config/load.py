"""Reads ``enclave.toml``, strictly: a whole, checked configuration or an error with its place."""

import pathlib

from cloister.config.reading import Reader, text_of
from cloister.config.rules import Violation, check
from cloister.config.schema import VERSION, EnclaveToml


def load(path: str | pathlib.Path) -> EnclaveToml:
    """Reads a file.

    Args:
        path: The ``enclave.toml``.

    Raises:
        MissingInput: There is no such file.
        ConfigError: It cannot be read, is longer than 1 MiB, is not TOML, has an
            unknown or wrong setting, or breaks a rule between settings. The message starts with
            file, line and column.
    """
    file = pathlib.Path(path)
    hint = "`cloister init NAME` makes one; `--config FILE` names another"
    return loads(text_of(file, missing_hint=hint), path=file)


def loads(text: str, *, path: pathlib.Path | None = None) -> EnclaveToml:
    """Reads the text of a file.

    Args:
        text: The text.
        path: Where it is from, for messages and for the paths in it.

    Raises:
        ConfigError: As :func:`load`.
    """
    name = str(path) if path else "enclave.toml"
    reader = Reader(name, text, EnclaveToml, example="enclave.toml.example")
    _check_version(reader)
    toml = EnclaveToml(**reader.values(), path=path)
    try:
        check(toml)
    except Violation as wrong:
        reader.fail(wrong.at, wrong.message, wrong.hint)
    return toml


def _check_version(reader: Reader) -> None:
    version = reader.raw.get("version", VERSION)
    if isinstance(version, int) and not isinstance(version, bool) and version != VERSION:
        reader.fail(
            ("version",),
            f"`version` is {version}, this program reads version {VERSION}",
            "version 0 is the hosted product's older format: `cloister init` writes a new file"
            if version < VERSION
            else "a newer cloister wrote this file: update cloister",
        )
