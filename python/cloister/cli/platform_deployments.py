"""``cloister platform deployment``: images that a platform releases to."""

import datetime as dt
import pathlib
from typing import Annotated

import typer

from cloister import config as configuration
from cloister.cli import _owner, output, params
from cloister.config import EnclaveToml
from cloister.errors import ConfigError

_Config = Annotated[
    pathlib.Path, typer.Option("--config", metavar="FILE", help="The enclave.toml.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def create(  # noqa: PLR0913 - an option is an argument
    *,
    end_others: Annotated[
        bool, typer.Option("--end-others", help="Release nothing more to the images before.")
    ] = False,
    until: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Ends by itself: 90d, or 2026-12-31T00:00:00Z."),
    ] = None,
    pcr4: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="The parent instance; a debug enclave needs it."),
    ] = None,
    eif: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="FILE", help="An image; default: the one of enclave.toml's PCRs."),
    ] = None,
    config: _Config = pathlib.Path("enclave.toml"),
    as_json: _Json = False,
) -> None:
    """Register an image: the platform releases secrets to it.

    It is the one whose PCRs are in enclave.toml; with --eif that file is measured, and has to be an
    image of the same enclave.

    Example:
      cloister platform deployment create --end-others
      cloister platform deployment create --eif releases/7.eif
    """
    ends = (
        None if until is None else params.end(until, now=dt.datetime.now(dt.UTC), option="--until")
    )
    registers = _registers_of(configuration.load(config)) if eif is None else _measured(eif, config)
    pcrs = {str(index): value.hex() for index, value in registers.items()}
    if pcr4 is not None:
        pcrs["4"] = pcr4
    with _owner.opened(config.parent) as owner:
        enclave = _owner.enclave_of(config)
        made = owner.add_deployment(enclave, pcrs, ends_others=end_others, until=ends)
    output.show(made, as_json=as_json, text=made["id"])


def _registers_of(toml: EnclaveToml) -> dict[int, bytes]:
    """The registers in enclave.toml, as a document of the image has them.

    Raises:
        ConfigError: There are none.
    """
    registers = dict(toml.attestation.registers())
    if not registers:
        raise ConfigError(
            f"`{toml.path}` has no PCRs", hint="`cloister build` makes the image and writes them"
        )
    return registers | (dict.fromkeys((0, 1, 2), bytes(48)) if toml.debug else {})


def _measured(path: pathlib.Path, config: pathlib.Path) -> dict[int, bytes]:
    """The registers of an image, as a document of it has them.

    Raises:
        MalformedImage: It cannot be read.
        ConfigError: It is another enclave's.
    """
    from cloister.build import eif  # noqa: PLC0415 - heavy
    from cloister.build.built_config import attested_of  # noqa: PLC0415

    with eif.open_eif(path) as image:
        registers = dict(eif.measure(image).registers())
        built = attested_of(image, image_path=path)
    enclave = _owner.enclave_of(config)
    if str(built.get("uuid")) != str(enclave):
        raise ConfigError(f"`{path}` was built for another enclave than `{config}` is of")
    return registers | (dict.fromkeys((0, 1, 2), bytes(48)) if built["debug"] else {})


def end(
    deployment: Annotated[str, typer.Argument(metavar="ID", help="As `list deployments` has it.")],
    *,
    config: _Config = pathlib.Path("enclave.toml"),
    as_json: _Json = False,
) -> None:
    """End a deployment: nothing more is released to it, and what runs stops within 15 minutes.

    Example:
      cloister platform deployment end dep_0123456789abcdef
    """
    with _owner.opened(config.parent) as owner:
        owner.end_deployment(_owner.enclave_of(config), deployment)
    output.show({"id": deployment}, as_json=as_json, text=f"deployment `{deployment}` ended")
