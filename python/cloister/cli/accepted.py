"""Which documents a command accepts: the options that ``attest`` and ``attestation`` share."""

import dataclasses
import datetime as dt
import pathlib
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import typer

from cloister import attest
from cloister.cli import params
from cloister.errors import MissingInput, PolicyError, UsageError


class Register(NamedTuple):
    """A register of the command line.

    Args:
        number: 0 to 31.
        value: 48 bytes.
    """

    number: int
    value: bytes


def register(text: str) -> Register:
    """``N=HEX``: a register and its value."""
    return Register(*params.indexed_digest(text))


def age(text: str) -> dt.timedelta:
    """A duration with its unit, or a plain number of seconds."""
    return params.duration(f"{text}s" if text.isascii() and text.isdigit() else text)


Pcr = Annotated[
    list[Register] | None,
    typer.Option("--pcr", parser=register, metavar="N=HEX", help="Expected PCR. Repeatable."),
]
Toml = Annotated[
    pathlib.Path | None,
    typer.Option("--toml", metavar="FILE", help="Expect the PCRs of this enclave.toml."),
]
Eif = Annotated[
    pathlib.Path | None,
    typer.Option("--eif", metavar="FILE", help="Expect the PCRs of this image."),
]
MaxAge = Annotated[
    dt.timedelta | None,
    typer.Option("--max-age", parser=age, metavar="AGE", help="Oldest accepted. Default: 3h."),
]
DangerousRoot = Annotated[
    pathlib.Path | None,
    typer.Option(
        "--dangerous-root", metavar="FILE", help="Believe this root instead of the one of AWS."
    ),
]
DangerousDebug = Annotated[
    bool, typer.Option("--dangerous-accept-debug", help="Accept an enclave in debug mode.")
]
DangerousAny = Annotated[
    bool, typer.Option("--dangerous-any-measurement", help="Accept any code. Proves nothing of it.")
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options as they were given.

    Args:
        pcr: Registers of the command line.
        toml: ``enclave.toml`` with the PCRs of a build.
        eif: An image to measure.
        deployed: Images of which any may run; what the others say must hold besides.
        max_age: Oldest document accepted.
        dangerous_root: Another root.
        dangerous_accept_debug: Accept a debug enclave.
        dangerous_any_measurement: Accept any measurement.
    """

    pcr: Sequence[tuple[int, bytes]]
    toml: pathlib.Path | None = None
    eif: pathlib.Path | None = None
    deployed: Sequence[attest.Measurements] = ()
    max_age: dt.timedelta | None = None
    dangerous_root: pathlib.Path | None = None
    dangerous_accept_debug: bool = False
    dangerous_any_measurement: bool = False


def policy(options: Options) -> attest.Policy:
    """The policy that the options describe; one that accepts anything has to be asked for by name.

    Raises:
        UsageError: No source of measurements, contradicting ones, or ones that identify no code.
        MissingInput: A file does not exist.
        ConfigError: ``enclave.toml`` holds no PCRs.
    """
    registers = _registers(options)
    if options.dangerous_any_measurement and (registers or options.deployed):
        raise UsageError(
            "--dangerous-any-measurement contradicts --pcr, --toml, --eif and --enclave"
        )
    if options.deployed:
        sets: Sequence[attest.Accepted] = _narrowed(options.deployed, registers)
    elif registers:
        sets = [registers]
    else:
        sets = []
    if not sets and not options.dangerous_any_measurement:
        raise UsageError(
            "no measurements: one of --pcr, --toml and --eif is needed",
            hint="--dangerous-any-measurement accepts any code, and proves nothing about it",
        )
    anchor = (
        attest.TrustAnchor.dangerous_root(options.dangerous_root)
        if options.dangerous_root is not None
        else attest.TrustAnchor.aws_nitro()
    )
    try:
        return attest.Policy(
            measurements=sets,
            trust_anchor=anchor,
            max_age=dt.timedelta(hours=3) if options.max_age is None else options.max_age,
            dangerous_accept_debug=options.dangerous_accept_debug,
            dangerous_any_measurement=options.dangerous_any_measurement,
        )
    except PolicyError as problem:
        raise UsageError(problem.message, hint=problem.hint) from problem


def read(path: pathlib.Path, *, limit: int) -> bytes:
    """At most ``limit`` + 1 bytes of a file.

    Raises:
        MissingInput: There is no such file, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except FileNotFoundError:
        raise MissingInput(f"`{params.printable(str(path))}` does not exist") from None
    except OSError as problem:
        raise MissingInput(
            f"`{params.printable(str(path))}` cannot be read: {problem.strerror}"
        ) from problem


def _registers(options: Options) -> dict[int, bytes]:
    """All registers of all sources: each of them must hold."""
    found: dict[int, bytes] = {}
    sources: list[tuple[str, tuple[int, bytes]]] = [("--pcr", pair) for pair in options.pcr]
    if options.toml is not None:
        measured = attest.Measurements.from_toml(options.toml)
        sources += [("--toml", pair) for pair in measured.as_pairs()]
    if options.eif is not None:
        sources += [("--eif", pair) for pair in _measure(options.eif)]
    for source, (index, value) in sources:
        if found.setdefault(index, value) != value:
            raise UsageError(f"PCR{index} of {source} contradicts the one given before")
    return found


def _narrowed(
    deployed: Sequence[attest.Measurements], registers: dict[int, bytes]
) -> list[attest.Accepted]:
    """The sets of ``deployed`` that have these registers too, with all of them.

    Raises:
        UsageError: None does.
    """
    agreeing = [
        {**one.registers, **registers}
        for one in deployed
        if all(one.registers.get(index, value) == value for index, value in registers.items())
    ]
    if not agreeing:
        raise UsageError(
            "no deployment of --enclave has the registers of --pcr, --toml and --eif",
            hint="`cloister list deployments` shows the active ones",
        )
    return list(agreeing)


def _measure(path: pathlib.Path) -> list[tuple[int, bytes]]:
    if not path.exists():
        raise MissingInput(f"`{params.printable(str(path))}` does not exist")
    from cloister.build import eif  # noqa: PLC0415 - nothing else here needs the builder

    return sorted(eif.measure(path).registers().items())
