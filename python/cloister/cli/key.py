"""``cloister key``: API keys of an app, which clients show to its enclaves."""

import datetime as dt
import pathlib
from typing import Annotated

import typer

from cloister.cli import _owner, _shown_once, output, params

_Config = Annotated[
    pathlib.Path,
    typer.Option("--config", metavar="FILE", help="The enclave.toml whose store is meant."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def create(
    *,
    name: Annotated[str, typer.Option(help="What people know the key by.")] = "default",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCOPE",
            help="`app` (every enclave of the app) or `enclave:UUID`. Repeatable; default: app.",
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN", help="A length of time (90d) or a time (2026-12-31T00:00:00Z)."
        ),
    ] = None,
    config: _Config = pathlib.Path("enclave.toml"),
    as_json: _Json = False,
) -> None:
    """Make an API key.

    The key is printed on standard output once and never again: the store keeps a hash of it. Where
    it cannot be printed it is revoked. Running enclaves of the app accept it within seconds.

    Example:
      cloister key create --name ci --scope app --expires 90d
    """
    not_after = (
        None
        if expires is None
        else params.end(expires, now=dt.datetime.now(dt.UTC), option="--expires")
    )
    with _owner.opened(config.parent) as owner:
        app = _owner.app_of(owner, config)
        made = owner.create_api_key(app, name, scopes=scope or ["app"], not_after=not_after)
        what = f"the API key {made['id']}"
        with _shown_once.or_revoked(what, lambda: owner.revoke_api_key(app, made["id"])):
            output.note(f"API key `{made['name']}` made, shown once; its id is {made['id']}")
            output.show(made, as_json=as_json, text=made["api_key"])


def list_keys(*, config: _Config = pathlib.Path("enclave.toml"), as_json: _Json = False) -> None:
    """List API keys, revoked and expired ones included. The keys themselves cannot be shown.

    Example:
      cloister key list --json
    """
    with _owner.opened(config.parent) as owner:
        shown = owner.api_keys(_owner.app_of(owner, config))
    text = "\n".join(
        f"{row['id']}  {row['state']:<8}  {row['name']}  {','.join(row['scopes'])}"
        f"  {'expires ' + row['expires'] if row['expires'] else 'does not expire'}"
        for row in shown
    )
    output.show({"api_keys": shown}, as_json=as_json, text=text or "there are no API keys")


def revoke(
    key: Annotated[
        str, typer.Argument(metavar="ID", help="Id of the key, as `key list` shows it.")
    ],
    *,
    config: _Config = pathlib.Path("enclave.toml"),
    as_json: _Json = False,
) -> None:
    """Revoke an API key. Running enclaves refuse it within seconds, and in 15 minutes at most.

    Example:
      cloister key revoke 0123456789abcdef
    """
    with _owner.opened(config.parent) as owner:
        ended = owner.revoke_api_key(_owner.app_of(owner, config), key)
    output.show(ended, as_json=as_json, text=f"API key `{ended['name']}` ({ended['id']}) revoked")
