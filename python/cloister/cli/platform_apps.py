"""``cloister platform app``: apps of a platform and their key pairs."""

import base64
import pathlib
from typing import Annotated
from uuid import UUID

import typer

from cloister.cli import _owner, _streams, output

_Dir = Annotated[
    pathlib.Path | None,
    typer.Option("--dir", metavar="DIR", help="The platform's own folder, instead of its server."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="DNS label.")],
    *,
    directory: _Dir = None,
    as_json: _Json = False,
) -> None:
    """Add an app, with its first key pair.

    Example:
      cloister platform app create payments
    """
    with _owner.administered(directory) as owner:
        made = owner.add_app(name)
    output.show(made, as_json=as_json, text=f"{made['uuid']}  {made['name']}")


def list_apps(*, directory: _Dir = None, as_json: _Json = False) -> None:
    """List the apps.

    Example:
      cloister platform app list
    """
    with _owner.administered(directory) as owner:
        found = owner.apps()
    text = "\n".join(f"{one['uuid']}  {one['name']}  key {one['public_key']}" for one in found)
    output.show({"apps": found}, as_json=as_json, text=text or "there are no apps")


def add_key(
    app: Annotated[UUID, typer.Argument(metavar="UUID", help="The app.")],
    *,
    curve: Annotated[str, typer.Option(help="P-256, or secp256k1 for reading old data.")] = "P-256",
    private: Annotated[
        bool,
        typer.Option("--private", help="Take the private half, 32 bytes, from standard input."),
    ] = False,
    directory: _Dir = None,
    as_json: _Json = False,
) -> None:
    """Add a key pair to an app. Data is encrypted to the newest of P-256; all of them open.

    Example:
      cloister platform app add-key 0d5a2a8e-6a51-4f3b-bf0f-4d8c3f0a9e33
    """
    half = base64.b64encode(_streams.standard_input()).decode() if private else None
    with _owner.administered(directory) as owner:
        made = owner.add_app_key(app, curve=curve, private=half)
    output.show(made, as_json=as_json, text=f"{made['curve']}  {made['public']}")
