"""``cloister key``: API keys of the app beside ``enclave.toml``."""

import datetime as dt
import pathlib
from typing import Annotated, Any

import typer

from cloister.cli import output, params
from cloister.errors import UsageError
from cloister.platform import local
from cloister.platform.api_keys import ApiKeyRecord, ApiKeys

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

    The key is printed on standard output once and never again: the store keeps a hash of it.
    Running enclaves of the app accept it within seconds.

    Example:
      cloister key create --name ci --scope app --expires 90d
    """
    not_after = None if expires is None else _end(expires)
    database = local.open_store(config.parent)
    try:
        keys = ApiKeys(database, local.sole_app(database))
        made = keys.create(name, scopes=scope or ["app"], not_after=not_after)
    finally:
        database.close()
    output.note(f"API key `{made.record.name}` made, shown once; its id is {made.record.id}")
    output.show({"api_key": made.secret, **_shown(made.record)}, as_json=as_json, text=made.secret)


def list_keys(*, config: _Config = pathlib.Path("enclave.toml"), as_json: _Json = False) -> None:
    """List API keys, revoked and expired ones included. The keys themselves cannot be shown.

    Example:
      cloister key list --json
    """
    database = local.open_store(config.parent)
    try:
        records = ApiKeys(database, local.sole_app(database)).all()
    finally:
        database.close()
    shown = [_shown(record) for record in records]
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
    database = local.open_store(config.parent)
    try:
        record = ApiKeys(database, local.sole_app(database)).revoke(key)
    finally:
        database.close()
    output.show(
        _shown(record), as_json=as_json, text=f"API key `{record.name}` ({record.id}) revoked"
    )


def _end(text: str) -> dt.datetime:
    """A length of time from now, or a time."""
    if text.strip()[-1:].isdigit() or not text.strip()[:1].isdigit() or "T" in text or "Z" in text:
        return params.moment(text)
    try:
        return dt.datetime.now(dt.UTC) + params.duration(text)
    except OverflowError:
        raise UsageError(f"the key would expire after the end of time: `{text}`") from None


def _shown(record: ApiKeyRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "scopes": list(record.scopes),
        "state": record.state(dt.datetime.now(dt.UTC)),
        "created": _text(record.created),
        "expires": _text(record.not_after),
        "revoked": _text(record.revoked),
    }


def _text(moment: dt.datetime | None) -> str | None:
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")
