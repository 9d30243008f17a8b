"""``cloister platform enclave``: what an owner allows an enclave, and the end of one."""

import pathlib
from typing import Annotated
from uuid import UUID

import typer

from cloister.cli import _owner, output
from cloister.errors import UsageError

_Config = Annotated[
    pathlib.Path, typer.Option("--config", metavar="FILE", help="The enclave.toml.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def limit(
    count: Annotated[
        str, typer.Argument(metavar="N|none", help="How often it may run at one time.")
    ],
    *,
    config: _Config = pathlib.Path("enclave.toml"),
    as_json: _Json = False,
) -> None:
    """Limit how often the enclave may run at one time, wherever its image was carried.

    A boot beyond that gets no secrets; `cloister platform releases` shows the refusal. What runs
    already goes on. The place of a boot that has ended is free when its last bundle ends, within
    15 minutes: no host's word for an end is taken. A new image starts beside the one before it, so
    it needs a place of its own: with a limit of 1 it starts when the deployment before it has ended
    and its last bundle too.

    Example:
      cloister platform enclave limit 4
    """
    if count != "none" and not (count.isascii() and count.isdigit() and len(count) < MAX_DIGITS):
        raise UsageError("the limit is a whole number, or `none`")
    number = None if count == "none" else int(count)
    with _owner.opened(config.parent) as owner:
        changed = owner.set_max_boots(_owner.enclave_of(config), number)
    shown = "any number of times" if number is None else f"{number} times at one time"
    shown = "once at a time" if number == 1 else shown
    output.show(changed, as_json=as_json, text=f"`{changed['name']}` may run {shown}")


def delete(
    enclave: Annotated[str, typer.Argument(metavar="ENCLAVE", help="Its name or uuid.")],
    *,
    yes: Annotated[
        bool, typer.Option("--yes", help="What is deleted with it is not needed any more.")
    ] = False,
    config: _Config = pathlib.Path("enclave.toml"),
    as_json: _Json = False,
) -> None:
    """Delete an enclave, with its deployments, its variables and the secret of its objects.

    Nothing may be released to it any more: its deployments are ended, and the bundles of what ran
    have ended too, 15 minutes later. Records of what was released stay, and its uuid is not
    registered again.

    Example:
      cloister platform enclave delete --yes hello
    """
    if not yes:
        raise UsageError(
            "what is deleted with an enclave, secret variables among it, cannot be had back",
            hint="--yes says that it is not needed any more",
        )
    with _owner.opened(config.parent) as owner:
        shown = owner.enclave(_owner.named(owner, enclave, config))
        uuid = UUID(shown["uuid"])
        owner.delete_enclave(uuid)
    text = f"`{shown['name']}` ({uuid}) is deleted"
    output.show({"uuid": str(uuid), "name": shown["name"]}, as_json=as_json, text=text)


MAX_DIGITS = 6
