"""``cloister list``: enclaves of an app, and deployments of an enclave."""

import pathlib
from typing import Annotated

import typer

from cloister.cli import _owner, output

_Config = Annotated[
    pathlib.Path, typer.Option("--config", metavar="FILE", help="The enclave.toml.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def enclaves(*, config: _Config = pathlib.Path("enclave.toml"), as_json: _Json = False) -> None:
    """List the enclaves of the app.

    Example:
      cloister list enclaves --json
    """
    with _owner.opened(config.parent) as owner:
        found = owner.enclaves(_owner.app_of(owner, config))
    text = "\n".join(
        f"{one['uuid']}  {one['name']}  {one['trust_class']}  bundle {one['bundle_version']}"
        for one in found
    )
    output.show({"enclaves": found}, as_json=as_json, text=text or "there are no enclaves")


def deployments(*, config: _Config = pathlib.Path("enclave.toml"), as_json: _Json = False) -> None:
    """List the images of the enclave, oldest first: nothing is released to one that has ended.

    `until` is when one ends, or ended, by itself.

    Example:
      cloister list deployments
    """
    with _owner.opened(config.parent) as owner:
        found = owner.deployments(_owner.enclave_of(config))
    text = "\n".join(
        f"{one['id']}  {'active' if one['active'] else 'ended '}  {one['created']}"
        f"  PCR0 {one['pcrs']['0'][:16]}…{_until(one['until'])}"
        for one in found
    )
    output.show({"deployments": found}, as_json=as_json, text=text or "there are no deployments")


def _until(end: str | None) -> str:
    return "" if end is None else f"  until {end}"
