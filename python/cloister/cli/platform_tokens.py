"""``cloister platform token``: who may ask the platform for what."""

import datetime as dt
import pathlib
from typing import Annotated, Any

import typer

from cloister.cli import _owner, _shown_once, output, params

_Dir = Annotated[
    pathlib.Path | None,
    typer.Option("--dir", metavar="DIR", help="The platform's own folder, instead of its server."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def create(
    *,
    name: Annotated[str, typer.Option(help="What people know the token by.")],
    scope: Annotated[
        list[str],
        typer.Option(
            metavar="SCOPE",
            help="`relay:ENCLAVE` for a host; `read:APP`, `deploy:APP`, `manage:APP`; `owner`."
            " Repeatable.",
        ),
    ],
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN", help="A length of time (90d) or a time (2026-12-31T00:00:00Z)."
        ),
    ] = None,
    directory: _Dir = None,
    as_json: _Json = False,
) -> None:
    """Make a token. It is printed once and never again: the store keeps a hash of it.

    Where it cannot be printed it is revoked.

    A host gets `relay` for the enclaves that it runs and nothing else: it is not trusted.

    Example:
      cloister platform token create --name host-1 --scope relay:UUID --expires 90d
    """
    end = (
        None
        if expires is None
        else params.end(expires, now=dt.datetime.now(dt.UTC), option="--expires")
    )
    with _owner.administered(directory) as owner:
        made = owner.create_token(name, scopes=scope, not_after=end)
        what = f"the token {made['id']}"
        with _shown_once.or_revoked(what, lambda: owner.revoke_token(made["id"])):
            output.note(f"token `{name}` made, shown once; its id is {made['id']}")
            output.show(made, as_json=as_json, text=made["token"])


def list_tokens(*, directory: _Dir = None, as_json: _Json = False) -> None:
    """List tokens, revoked and expired ones included. The tokens themselves cannot be shown.

    Example:
      cloister platform token list
    """
    with _owner.administered(directory) as owner:
        found = owner.tokens()
    text = "\n".join(_line(one) for one in found)
    output.show({"tokens": found}, as_json=as_json, text=text or "there are no tokens")


def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="Its id, as `token list` shows it.")],
    *,
    directory: _Dir = None,
    as_json: _Json = False,
) -> None:
    """Revoke a token: the next request with it is refused.

    Example:
      cloister platform token revoke 0123456789abcdef
    """
    with _owner.administered(directory) as owner:
        ended = owner.revoke_token(token)
    output.show(ended, as_json=as_json, text=f"token `{ended['name']}` ({ended['id']}) revoked")


def _line(one: dict[str, Any]) -> str:
    end = f"expires {one['expires']}" if one["expires"] else "does not expire"
    return f"{one['id']}  {one['state']:<8}  {one['name']}  {','.join(one['scopes'])}  {end}"
