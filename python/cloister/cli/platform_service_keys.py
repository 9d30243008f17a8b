"""``cloister platform service-key``: the keys that sign bundles, and their rotation."""

import pathlib
from typing import Annotated

import typer

from cloister.cli import _owner, output
from cloister.errors import UsageError

_Dir = Annotated[
    pathlib.Path | None,
    typer.Option("--dir", metavar="DIR", help="The platform's own folder, instead of its server."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def list_keys(*, directory: _Dir = None, as_json: _Json = False) -> None:
    """List the public halves of those in use, oldest first: the first one signs.

    Example:
      cloister platform service-key list
    """
    with _owner.administered(directory) as owner:
        _show(owner.service_keys(), as_json=as_json)


def add(*, directory: _Dir = None, as_json: _Json = False) -> None:
    """Add the next one; the oldest goes on signing.

    `cloister init --force` writes it into enclave.toml. Build and deploy every image, then retire
    the old key: what still runs and does not know the new one gets no bundle after that.

    Example:
      cloister platform service-key add
    """
    with _owner.administered(directory) as owner:
        _show(owner.add_service_key(), as_json=as_json)


def retire(
    public: Annotated[str, typer.Argument(metavar="HEX", help="Its public half.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Every running image knows the next.")] = False,
    directory: _Dir = None,
    as_json: _Json = False,
) -> None:
    """Retire one; the next one signs. An image that does not know that one stops within 15 minutes.

    Example:
      cloister platform service-key retire --yes 9d329f8b345ca145…
    """
    if not yes:
        raise UsageError(
            "images that do not know the next key stop within 15 minutes",
            hint="--yes says that every running image was built with it",
        )
    with _owner.administered(directory) as owner:
        _show(owner.retire_service_key(public), as_json=as_json)


def _show(keys: list[str], *, as_json: bool) -> None:
    output.show({"service_keys": keys}, as_json=as_json, text="\n".join(keys))
