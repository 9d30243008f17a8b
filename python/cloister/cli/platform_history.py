"""``cloister platform activity``, ``releases`` and ``events``: what happened, newest first."""

import pathlib
from typing import Annotated

import typer

from cloister.cli import _owner, output
from cloister.cli.params import without_controls

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Limit = Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="How many at most.")]
_Before = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="ID", help="Go on behind this one: `id` of the last that was shown."
    ),
]


def activity(
    *,
    limit: _Limit = 50,
    before: _Before = None,
    directory: Annotated[
        pathlib.Path | None,
        typer.Option("--dir", metavar="DIR", help="The platform's own folder, not its server."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Show what was changed in the registry: who holds a token changes it.

    Example:
      cloister platform activity --limit 20
    """
    with _owner.administered(directory) as owner:
        found = owner.activity(limit=limit, before=before)
    text = "\n".join(
        f"{one['id']:>6}  {one['at']}  {one['kind']:<20}  {one['subject']}  {one['message']}"
        for one in found
    )
    output.show({"activity": found}, as_json=as_json, text=text or "nothing was changed")


def releases(
    *,
    limit: _Limit = 50,
    before: _Before = None,
    config: Annotated[
        pathlib.Path, typer.Option("--config", metavar="FILE", help="The enclave.toml.")
    ] = pathlib.Path("enclave.toml"),
    as_json: _Json = False,
) -> None:
    """Show which bundles the enclave was given, and which requests were refused, and why.

    Example:
      cloister platform releases
    """
    with _owner.opened(config.parent) as owner:
        found = owner.releases(_owner.enclave_of(config), limit=limit, before=before)
    text = "\n".join(
        f"{one['id']:>6}  {one['at']}  {'released' if one['released'] else 'refused '}"
        f"  {'version ' + str(one['bundle_version']) if one['released'] else '-'}"
        f"  {without_controls(one['module_id'] or '-')}  {one['reason']}"
        for one in found
    )
    output.show({"releases": found}, as_json=as_json, text=text or "nothing was asked for yet")


def events(
    *,
    limit: _Limit = 50,
    before: _Before = None,
    config: Annotated[
        pathlib.Path, typer.Option("--config", metavar="FILE", help="The enclave.toml.")
    ] = pathlib.Path("enclave.toml"),
    as_json: _Json = False,
) -> None:
    """Show what was reported of the enclave: by itself, or `host.…` by its host. A stranger's word.

    Example:
      cloister platform events --limit 20
    """
    with _owner.opened(config.parent) as owner:
        found = owner.events(_owner.enclave_of(config), limit=limit, before=before)
    text = "\n".join(
        f"{one['id']:>6}  {one['at']}  {without_controls(one['kind'])}"
        f"  {without_controls(one['message'])}"
        for one in found
    )
    output.show({"events": found}, as_json=as_json, text=text or "nothing was reported yet")
