"""Text of the command line becomes types here; a wrong one is a usage error, exit status 2."""

import datetime as dt
import re

import typer

from cloister.errors import UsageError

PCR_BYTES = 48  # SHA-384, the only digest the NSM uses (nsm-api, attestation_process.md 3.2.2.2)


def digest(text: str) -> bytes:
    """A PCR value: 96 hexadecimal digits, any case."""
    try:
        value = bytes.fromhex(text.strip())
    except ValueError:
        raise typer.BadParameter(f"not hexadecimal: `{printable(text)}`") from None
    if len(value) != PCR_BYTES:
        raise typer.BadParameter(
            f"expected {2 * PCR_BYTES} hexadecimal digits, got {2 * len(value)}"
        )
    return value


def indexed_digest(text: str) -> tuple[int, bytes]:
    """``INDEX=HEX``: a PCR index from 0 to 31 and its value."""
    index, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"(?:PCR)?[0-9]{1,2}", index.strip(), re.IGNORECASE):
        raise typer.BadParameter(f"expected INDEX=HEX, as in 0=ab12…, got `{printable(text)}`")
    number = int(re.sub(r"[^0-9]", "", index))
    if number > 31:  # noqa: PLR2004 - the NSM has 32 registers
        raise typer.BadParameter(f"PCR index {number} is not between 0 and 31")
    return number, digest(value)


def octets(text: str) -> bytes:
    """Bytes as hexadecimal digits, any case."""
    try:
        return bytes.fromhex(text.strip())
    except ValueError:
        raise typer.BadParameter(f"not hexadecimal: `{printable(text)}`") from None


def moment(text: str) -> dt.datetime:
    """An instant: RFC 3339, or ``@`` and seconds since the Unix epoch."""
    value = _time(text)
    if value is None:
        raise typer.BadParameter(
            f"expected a time as 2026-01-31T12:00:00Z or @1767225600, got `{printable(text)}`"
        )
    return _in_utc(value)


def duration(text: str) -> dt.timedelta:
    """A length of time: a number and ``s``, ``m``, ``h`` or ``d``, as in ``90s`` or ``3h``."""
    value = _length(text)
    if value is None:
        raise typer.BadParameter(
            f"expected a duration as 90s, 15m, 3h or 7d, got `{printable(text)}`"
        )
    return value


def end(text: str, *, now: dt.datetime, option: str) -> dt.datetime:
    """A length of time from ``now``, or a time.

    Args:
        text: As given to ``option``.
        now: The present time.
        option: What the error names.

    Raises:
        UsageError: It is after the end of time.
    """
    length, time = _length(text), _time(text)
    if length is not None:
        try:
            return now + length
        except OverflowError:
            raise UsageError(f"{option}: after the end of time: `{printable(text)}`") from None
    if time is None:
        raise typer.BadParameter(
            "expected a length of time as 90d, 3h, 15m or 90s, or a time as"
            f" 2026-12-31T00:00:00Z, got `{printable(text)}`",
            param_hint=option,
        )
    return _in_utc(time, option=option)


def _length(text: str) -> dt.timedelta | None:
    found = re.fullmatch(r"([0-9]{1,9})\s*([smhd])", text.strip(), re.ASCII)
    return None if found is None else dt.timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def _time(text: str) -> dt.datetime | None:
    """A time that is in the calendar in UTC too; without a zone it has none yet."""
    try:
        if text.startswith("@"):
            return dt.datetime.fromtimestamp(float(text[1:]), tz=dt.UTC)
        value = dt.datetime.fromisoformat(text)
        return value if value.tzinfo is None else value.astimezone(dt.UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _in_utc(value: dt.datetime, *, option: str | None = None) -> dt.datetime:
    if value.tzinfo is None:
        raise typer.BadParameter("the time has no zone: append Z for UTC", param_hint=option)
    return value


def listen_address(text: str) -> str:
    """``HOST:PORT``, where ``--listen`` may have ``tcp:`` in front.

    Raises:
        UsageError: It is none.
    """
    host, colon, port = text.removeprefix("tcp:").rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > MAX_PORT:
        raise UsageError(
            f"--listen: expected HOST:PORT, as in 127.0.0.1:8443, got `{printable(text)}`"
        )
    return f"{host}:{port}"


def printable(text: str) -> str:
    """Text of a stranger, short and without control characters, for a message."""
    return without_controls(text[:80]) + ("…" if len(text) > 80 else "")  # noqa: PLR2004 - the cut


def without_controls(text: str) -> str:
    """Text of a stranger, without what a terminal would obey."""
    return "".join(char if char.isprintable() else "�" for char in text)


MAX_PORT = 65_535
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
