"""``cloister platform enclave``: what an owner allows an enclave."""

import pathlib
from typing import Annotated

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


MAX_DIGITS = 6
