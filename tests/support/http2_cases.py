r"""The cases of ``tests/vectors/http2``: how they are read, and how one is played over HTTP/2.

The files are like those of ``tests/vectors/http1`` (see :mod:`tests.support.http1_cases`), but a
header list is sent instead of text: that of ``GET /case`` with the API key, in which ``set`` gives
other values, ``drop`` takes out lines, and ``first`` and ``add`` are put in front and behind; or
``fields``, the whole of it. ``data`` are DATA frames, ``trailers`` a header list behind them, and
with ``open`` the stream is not ended. ``reset`` and ``goaway`` name the error code that ends the
stream or the connection.
"""

import dataclasses
import pathlib
import time
import tomllib
from collections.abc import Iterator
from typing import Any

from h2.errors import ErrorCodes
from tests.support.dev_process import DevProcess
from tests.support.exchanges import Ending, Expected, Observed, Received
from tests.support.http1_cases import Others
from tests.support.raw_http2 import Fields, RawHttp2, get
from tests.support.recording_process import RecordingProcess, Reply, echo, ok

FOLDER = pathlib.Path(__file__).parents[1] / "vectors" / "http2"
CASE, PROBE, OTHER = b"/case", b"/probe", b"/other"
REFUSED = {"answers": [], "ending": "cut", "reset": "PROTOCOL_ERROR"}
ENDED = {"answers": [], "ending": "closed", "goaway": "PROTOCOL_ERROR"}
ANSWERED = {"answers": [400], "ending": "kept"}
ACCEPTED = {"answers": [200], "ending": "kept"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case.

    Args:
        name: Unique within its file.
        why: The section of the RFC that decides, or the attack that it is known as.
        head: Header list.
        data: DATA frames.
        trailers: Header list behind them.
        is_open: Whether the stream is not ended.
        reset: Code that the stream is reset with, if it is.
        goaway: Code that the connection is ended with, if it is.
        expected: What should happen besides.
        reply: What the user process answers to a target that begins with ``/case``.
        is_refused: Whether it stands for what must not pass.
    """

    name: str
    why: str
    head: Fields
    data: tuple[bytes, ...]
    trailers: Fields | None
    is_open: bool
    reset: str | None
    goaway: str | None
    expected: Expected
    reply: Reply | None
    is_refused: bool


def load() -> Iterator[tuple[str, Case]]:
    """Every case, with the name of its file in front of its own."""
    kinds = {"refused": REFUSED, "ended": ENDED, "answered": ANSWERED, "accepted": ACCEPTED}
    for path in sorted(FOLDER.glob("*.toml")):
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        for kind, common in kinds.items():
            for raw in content.get(kind, ()):
                case = _case({**common, **raw}, is_refused=kind != "accepted")
                yield f"{path.stem}/{case.name}", case


def play(
    case: Case, plane: DevProcess, process: RecordingProcess
) -> tuple[Observed, str | None, str | None]:
    """Plays a case between requests of other clients.

    Returns:
        What was seen, and the codes of RST_STREAM and GOAWAY.
    """
    other = Others(plane)
    others = [other.ask()]
    process.script = lambda request: _reply(case, request)
    begun = len(process.received)
    with RawHttp2(plane.address, plane.ca_file) as client:
        number = _send(case, plane, client)
        stream = client.answer(number, 5)
        if case.expected.ending == "closed":
            client.wait(lambda: client.is_closed, 5)
        ending, surplus = _ending(client, plane, number)
        others += [other.ask(), other.ask()]
    others.append(other.ask(anew=True))
    other.close()
    observed = Observed(
        answers=tuple(stream.answers),
        ending=ending,
        surplus=surplus,
        forwarded=_forwarded(case, process, begun),
        others=others,
    )
    # NO_ERROR behind a whole answer only says that the rest is not wanted (RFC 9113 §8.1).
    is_wanted = stream.reset is not None and not (stream.is_over and stream.reset == 0)
    reset = ErrorCodes(stream.reset).name if is_wanted and stream.reset is not None else None
    goaway = None if client.goaway is None else ErrorCodes(client.goaway).name
    return observed, reset, goaway


def _send(case: Case, plane: DevProcess, client: RawHttp2) -> int:
    number = client.new_stream()
    last = case.trailers is None and not case.is_open
    parts = client.head(number, _fill(case.head, plane), is_over=last and not case.data)
    client.try_send(parts)
    for index, piece in enumerate(case.data):
        is_over = last and index == len(case.data) - 1
        data = piece.replace(b"{key}", plane.key.encode())
        if client.is_closed:
            break
        client.data(number, data, is_over=is_over)
    if case.trailers is not None:
        client.try_send(client.head(number, _fill(case.trailers, plane), is_over=True))
    return number


def _ending(client: RawHttp2, plane: DevProcess, number: int) -> tuple[Ending, bytes]:
    """How the stream and the connection were left, and what the next answer had wrong."""
    stream = client.streams[number]
    if client.is_closed or client.goaway is not None:
        return "closed", b""
    probe = client.answer(client.ask(get(plane.key, PROBE)), 5)
    body = probe.answers[-1].body if probe.answers else b""
    surplus = (
        b"" if (probe.status, body) == (200, b"you asked for /probe") else repr(probe).encode()
    )
    return ("kept" if stream.is_over else "cut"), surplus


def _forwarded(case: Case, process: RecordingProcess, begun: int) -> list[Received]:
    if case.expected.unfinished is not None:
        # The connection of a request that was given up is closed; that may be seen a little later.
        deadline = time.monotonic() + 5
        while process.unfinished() and time.monotonic() < deadline:
            time.sleep(0.005)
    found = [*process.received[begun:], *process.unfinished()]
    return [request for request in found if not request.target.startswith((OTHER, PROBE))]


def _reply(case: Case, request: Received) -> Reply:
    if case.reply is not None and request.target.startswith(CASE):
        return case.reply
    if request.target.startswith((CASE, PROBE, OTHER)):
        return echo(request)
    return ok(b"what is this?")


def _fill(fields: Fields, plane: DevProcess) -> Fields:
    return [(name, value.replace(b"{key}", plane.key.encode())) for name, value in fields]


def _case(raw: dict[str, Any], *, is_refused: bool) -> Case:
    changed = {_bytes(name): _bytes(value) for name, value in raw.pop("set", {}).items()}
    dropped = [_bytes(name) for name in raw.pop("drop", ())]
    plain = [(name, changed.pop(name, value)) for name, value in get("{key}", CASE)]
    plain = [field for field in plain if field[0] not in dropped]
    assert not changed, "`set` is for what is there already"
    own_list = [*_fields(raw.pop("first", ())), *plain, *_fields(raw.pop("add", ()))]
    fields = raw.pop("fields", None)
    reply = raw.pop("reply", None)
    trailers = raw.pop("trailers", None)
    own = {
        "name": raw.pop("name"),
        "why": raw.pop("why"),
        "head": own_list if fields is None else _fields(fields),
        "data": tuple(_bytes(piece) for piece in raw.pop("data", ())),
        "trailers": None if trailers is None else _fields(trailers),
        "is_open": raw.pop("open", False),
        "is_refused": is_refused,
        "reply": None if reply is None else Reply(pieces=(_bytes(reply),)),
    }
    ends = {"reset": raw.pop("reset", None), "goaway": raw.pop("goaway", None)}
    if "body" in raw:
        raw["body"] = _bytes(raw["body"])
    for key in ("has", "lacks", "forwarded"):
        raw[key] = tuple(_bytes(part) for part in raw.get(key, ()))
    if "unfinished" in raw:
        raw["unfinished"] = _bytes(raw["unfinished"])
    raw["answers"] = tuple(raw["answers"])
    return Case(expected=Expected(**raw), **ends, **own)


def _fields(pairs: Any) -> list[tuple[bytes, bytes]]:
    return [(_bytes(name), _bytes(value)) for name, value in pairs]


def _bytes(part: str | dict[str, Any] | list[Any]) -> bytes:
    if isinstance(part, str):
        return part.encode("latin-1")
    if isinstance(part, list):
        return b"".join(map(_bytes, part))
    return _bytes(part["repeat"]) * int(part["times"])
