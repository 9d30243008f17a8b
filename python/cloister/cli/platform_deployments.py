"""``cloister platform deployment``: images that a platform releases to."""

import datetime as dt
import pathlib
from typing import Annotated

import typer

from cloister import config as configuration
from cloister.cli import _owner, output, params
from cloister.errors import ConfigError

_Config = Annotated[
    pathlib.Path, typer.Option("--config", metavar="FILE", help="The enclave.toml.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def create(
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
    config: _Config = pathlib.Path("enclave.toml"),
    as_json: _Json = False,
) -> None:
    """Register the image whose PCRs are in enclave.toml: the platform releases secrets to it.

    Example:
      cloister platform deployment create --end-others
    """
    ends = None if until is None else params.end(until, now=dt.datetime.now(dt.UTC))
    toml = configuration.load(config)
    registers = dict(toml.attestation.registers())
    if not registers:
        raise ConfigError(
            f"`{config}` has no PCRs", hint="`cloister build` makes the image and writes them"
        )
    if toml.debug:
        registers |= dict.fromkeys((0, 1, 2), bytes(48))
    pcrs = {str(index): value.hex() for index, value in registers.items()}
    if pcr4 is not None:
        pcrs["4"] = pcr4
    with _owner.opened(config.parent) as owner:
        enclave = _owner.enclave_of(config)
        made = owner.add_deployment(enclave, pcrs, ends_others=end_others, until=ends)
    output.show(made, as_json=as_json, text=made["id"])


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
