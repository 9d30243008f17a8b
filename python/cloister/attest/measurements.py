"""One accepted set of registers (PCRs), from whatever people have: hex, bytes, ``enclave.toml``."""

import dataclasses
import os
import pathlib
import re
import tomllib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Self

from cloister.errors import ConfigError, MissingInput, PolicyError


@dataclasses.dataclass(frozen=True, slots=True, init=False)
class Measurements:
    """A set of registers: a document matches when each register named here has the value given.

    Args:
        registers: Values by register. A register is its index, or a name such as ``PCR0``,
            ``pcr0`` or ``pcr_0``; a value is 48 bytes, or 96 hexadecimal digits in any case.

    Raises:
        PolicyError: An unknown register, a value of another length, or none of PCR 0, 1, 2 and 8:
            a set of others would accept any code.
    """

    registers: Mapping[int, bytes]

    def __init__(self, registers: Mapping[Any, str | bytes]) -> None:
        checked: dict[int, bytes] = {}
        for name, value in _mapping(registers).items():
            index = _index(name)
            if index in checked:
                raise PolicyError(f"PCR{index} is given twice in one set of measurements")
            checked[index] = _value(index, value)
        if not checked:
            raise PolicyError("a set of measurements is empty: it must name what it accepts")
        if checked.keys().isdisjoint(IDENTIFYING):
            raise PolicyError(
                "a set of measurements must name at least one of PCR0, PCR1, PCR2 and PCR8",
                hint="the others identify a machine or a role, not code",
            )
        object.__setattr__(self, "registers", MappingProxyType(dict(sorted(checked.items()))))

    def __hash__(self) -> int:
        return hash(tuple(self.registers.items()))

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Self:
        """The registers that ``cloister build`` wrote into ``enclave.toml``.

        Raises:
            MissingInput: There is no such file.
            ConfigError: It is not TOML, or has no ``[attestation]`` with PCRs.
            PolicyError: A value is wrong.
        """
        file = pathlib.Path(path)
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise MissingInput(f"`{file}` does not exist") from None
        except (OSError, UnicodeDecodeError) as problem:
            raise ConfigError(f"`{file}` cannot be read: {problem}") from problem
        try:
            section = tomllib.loads(text).get("attestation", {})
        except tomllib.TOMLDecodeError as problem:
            raise ConfigError(f"`{file}` is not TOML: {problem}") from problem
        registers = (
            {key: value for key, value in section.items() if key != "HashAlgorithm"}
            if isinstance(section, dict)
            else {}
        )
        if not registers:
            raise ConfigError(
                f"`{file}` has no PCRs in `[attestation]`", hint="`cloister build` writes them"
            )
        return cls(registers)

    def as_pairs(self) -> list[tuple[int, bytes]]:
        """Index and value of each register, by index."""
        return list(self.registers.items())


def _mapping(registers: object) -> Mapping[object, object]:
    if not isinstance(registers, Mapping):
        kind = type(registers).__name__
        raise PolicyError(f"measurements must be a mapping of registers, got {kind}")
    return registers


def _index(name: object) -> int:
    if isinstance(name, bool):
        raise PolicyError(f"unknown register {name!r}, expected PCR0 to PCR31")
    if isinstance(name, int):
        index = name
    else:
        found = _NAME.fullmatch(name) if isinstance(name, str) else None
        if found is None:
            raise PolicyError(f"unknown register {name!r:.40}, expected PCR0 to PCR31")
        index = int(found[1])
    if not 0 <= index < PCR_COUNT:
        raise PolicyError(f"unknown register PCR{index}, expected PCR0 to PCR31")
    return index


def _value(index: int, value: object) -> bytes:
    if isinstance(value, str):
        if not re.fullmatch(r"[0-9A-Fa-f]*", value.strip()) or len(value.strip()) % 2:
            raise PolicyError(f"PCR{index} is not hexadecimal")
        value = bytes.fromhex(value.strip())
    if not isinstance(value, bytes):
        raise PolicyError(f"PCR{index} must be bytes or text, got {type(value).__name__}")
    if len(value) != PCR_BYTES:
        raise PolicyError(f"PCR{index} is {len(value)} bytes long, expected {PCR_BYTES} (SHA-384)")
    return value


_NAME = re.compile(r"(?:PCR_?)?([0-9]{1,2})", re.IGNORECASE | re.ASCII)

PCR_BYTES = 48
"""SHA-384, the only digest the NSM uses (nsm-api, attestation_process.md 3.1)."""
PCR_COUNT = 32
"""Registers of an NSM (same page, 3.2.2.2)."""
IDENTIFYING = frozenset({0, 1, 2, 8})
"""The registers that identify code: image, kernel, application, signing certificate."""
