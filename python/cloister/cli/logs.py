"""``cloister logs``: transaction logs of the enclave beside ``enclave.toml``, or of a host."""

import datetime as dt
import pathlib
import re
import threading
import time
from typing import Annotated

import typer

from cloister.cli import _log_line, output, params
from cloister.errors import ConfigError, MissingInput, UsageError
from cloister.host import logs as segments
from cloister.moments import to_ms

LOGS = pathlib.Path(".cloister", "dev", "logs")  # below the folder of enclave.toml


def logs(  # noqa: PLR0913 - one parameter an option
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait for more, until Ctrl-C.")
    ] = False,
    ctx: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The request with this context id (x-evervault-ctx)."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="From this time on, or for this long: 10m, 2h."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Up to this time, or this long ago.")
    ] = None,
    status: Annotated[
        list[str] | None,
        typer.Option(metavar="STATUS", help="With this status: 404, or 4xx. Repeatable."),
    ] = None,
    config: Annotated[
        pathlib.Path,
        typer.Option("--config", metavar="FILE", help="The enclave.toml whose logs are meant."),
    ] = pathlib.Path("enclave.toml"),
    log_dir: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="DIR", help="Logs that a host keeps: state/logs/UUID in its folder."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each record as one line of JSON.")
    ] = False,
) -> None:
    """Show the transaction logs of local runs, or of a host, one line a request.

    A line has the time the request began (UTC), status, method, path, milliseconds, the client's
    address and the context id. What clients chose is shown without control characters.

    With --follow, records that are there already are shown only when --since or --ctx asks for
    them; Ctrl-C ends it with status 130. A request is in the logs up to a second after its answer.

    Example:
      cloister logs --since 10m --status 5xx
      cloister logs --follow --ctx 0F4B54C2E6E848C1A4E79CF42D0BD6F1 --json
    """
    wanted = segments.Wanted(
        ctx=None if ctx is None else _ctx(ctx),
        since_ms=None if since is None else _moment_ms("--since", since),
        until_ms=None if until is None else _moment_ms("--until", until),
        statuses=frozenset(_status(text) for text in status or ()),
    )
    if follow and until is not None:
        raise UsageError("--follow waits for what comes, so it goes without --until")
    folder = _folder(config) if log_dir is None else _there(log_dir)
    if follow:
        from_start = since is not None or ctx is not None
        found = segments.follow(folder, threading.Event(), wanted, from_start=from_start)
    else:
        found = segments.records(folder, wanted)
    for record in found:
        output.show(record, as_json=as_json, text=_log_line.line(record))


def _folder(config: pathlib.Path) -> pathlib.Path:
    from cloister.config import load  # noqa: PLC0415 - heavy, and not for --help

    toml = load(config)
    if toml.uuid is None:
        raise ConfigError(
            f"{config} has no `uuid`, so it has no logs", hint="`cloister init NAME` writes it"
        )
    return config.parent / LOGS / str(toml.uuid)


def _there(log_dir: pathlib.Path) -> pathlib.Path:
    if not log_dir.is_dir():
        raise MissingInput(f"there is no folder `{log_dir}`")
    return log_dir


def _ctx(text: str) -> str:
    # A client may have sent an id of its own; ours is the last.
    own = text.rpartition(";")[2].strip()
    if not re.fullmatch(r"[0-9A-Fa-f]{32}", own):
        raise UsageError(f"--ctx: expected 32 hexadecimal digits, got `{params.printable(text)}`")
    return own.upper()


def _moment_ms(option: str, text: str) -> int:
    """A time, or how long ago."""
    try:
        return time.time_ns() // 1_000_000 - params.duration(text) // _MILLISECOND
    except typer.BadParameter:
        pass
    try:
        return to_ms(params.moment(text))
    except typer.BadParameter:
        raise UsageError(
            f"{option}: expected a time as 2026-01-31T12:00:00Z, or how long ago as 10m, "
            f"got `{params.printable(text)}`"
        ) from None


def _status(text: str) -> str:
    if not re.fullmatch(r"[1-5][0-9]{2}|[0-5][xX]{2}", text):
        raise UsageError(f"--status: expected 404 or 4xx, got `{params.printable(text)}`")
    return text.lower()


_MILLISECOND = dt.timedelta(milliseconds=1)
