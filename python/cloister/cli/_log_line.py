"""One transaction log record as a line for people.

Paths, header values and user agents are their clients' words: nothing in a line can move a cursor,
end the line or look like another one (T-20).
"""

import datetime as dt
from typing import Any

from cloister.cli.params import without_controls


def line(record: dict[str, Any]) -> str:
    """Time, status, method, path, milliseconds, address and context id of a record."""
    if record.get("requestType") == "TCP":
        record = record | {"requestMethod": "TCP"}
    shown = [_time(record.get("ts")), *(_field(record, name) for name in _FIELDS)]
    return " ".join(shown)


def _time(ts: object) -> str:
    if not isinstance(ts, int):
        return "-"
    try:
        moment = dt.datetime.fromtimestamp(ts / 1000, tz=dt.UTC)
    except (OverflowError, ValueError, OSError):
        return "-"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _field(record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    if value is None or value == "":
        return "-"
    text = str(value) + ("ms" if name == "elapsed" else "")
    # White space separates the fields; a path with some in it stays one field.
    return "".join("�" if char.isspace() else char for char in without_controls(text))


_FIELDS = ("responseCode", "requestMethod", "uri", "elapsed", "remoteIp", "txid")
