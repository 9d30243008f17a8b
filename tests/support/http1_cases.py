r"""The cases of ``tests/vectors/http1``: how they are read, and how one is played over HTTP/1.

Each file is TOML: cases under ``[[refused]]``, with what they have in common under
``[defaults]``, and cases under ``[[accepted]]``, the twins that differ from them by what makes it
right. The keys of a case are those of :class:`Case` and of
:class:`tests.support.exchanges.Expected`, which judges.

A text stands for its Latin-1 bytes, so ``\u00e9`` is one byte. Wherever bytes are wanted, a list of
texts and of ``{ repeat = "x", times = 9 }`` is joined; the pieces of a ``reply`` that is a list are
sent one by one. ``{who}`` is the Host line and the API key that lets in, ``{key}`` the key alone.
"""

import contextlib
import dataclasses
import itertools
import pathlib
import time
import tomllib
from collections.abc import Iterator
from typing import Any, Literal

from tests.support.dev_process import DevProcess
from tests.support.exchanges import Answer, Ending, Expected, Observed, Received
from tests.support.raw_client import Broken, RawClient
from tests.support.recording_process import RecordingProcess, Reply, echo, ok

FOLDER = pathlib.Path(__file__).parents[1] / "vectors" / "http1"
CASE, PROBE, OTHER = b"/case", b"/probe", b"/other"
REFUSED = {"answers": [400], "ending": "closed", "why": ""}
ACCEPTED = {"answers": [200], "ending": "kept", "why": ""}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case.

    Args:
        name: Unique within its file.
        why: The section of the RFC that decides, or the attack that it is known as.
        send: What the client sends.
        expected: What should happen.
        reply: What the user process answers to a target that begins with ``/case``.
        probe: Whether a good request follows at once: it must be answered where the connection is
            kept, and must never be seen where it is not.
        hang_up: Whether the client ends its side after that.
        is_cut: Whether the case is also played byte by byte.
        is_refused: Whether it stands for what must not pass.
    """

    name: str
    why: str
    send: bytes
    expected: Expected
    reply: Reply | None
    probe: bool
    hang_up: bool
    is_cut: bool
    is_refused: bool


def load() -> Iterator[tuple[str, Case]]:
    """Every case, with the name of its file in front of its own."""
    for path in sorted(FOLDER.glob("*.toml")):
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        for kind, common in (("refused", REFUSED), ("accepted", ACCEPTED)):
            defaults = content.get("defaults", {}) if kind == "refused" else {}
            for raw in content[kind]:
                case = _case({**common, **defaults, **raw}, is_refused=kind == "refused")
                yield f"{path.stem}/{case.name}", case


def play(
    case: Case, plane: DevProcess, process: RecordingProcess, *, cut: bool = False
) -> Observed:
    """Plays a case between two requests of another client, and of a third one after it."""
    other = Others(plane)
    others = [other.ask()]
    process.script = lambda request: _reply(case, request)
    begun = len(process.received)
    with plane.client() as client:
        probe = _fill(b"GET /probe HTTP/1.1\r\n{who}\r\n", plane) if case.probe else b""
        data = _fill(case.send, plane) + probe
        for piece in (data[at : at + 1] for at in range(len(data))) if cut else (data,):
            if not client.try_send(piece):
                break
        if case.hang_up:
            client.hang_up()
        answers, ending, surplus = _answers(case, plane, client)
        others += [other.ask(), other.ask()]
        client.close()
    others.append(other.ask(anew=True))
    other.close()
    return Observed(
        answers=answers,
        ending=ending,
        surplus=surplus,
        forwarded=_forwarded(case, process, begun),
        others=others,
    )


class Others:
    """A client that has nothing to do with the case."""

    _numbers = itertools.count()

    def __init__(self, plane: DevProcess) -> None:
        self._plane = plane
        self._client = plane.client()

    def ask(self, *, anew: bool = False) -> tuple[bytes, bytes]:
        """What should be answered and what is; on a new connection when asked for."""
        if anew:
            self._client.close()
            self._client = self._plane.client()
        target = OTHER + b"/%d" % next(self._numbers)
        request = _fill(b"GET " + target + b" HTTP/1.1\r\n{who}\r\n", self._plane)
        try:
            answer = self._client.ask(request)
        except Broken as broken:
            return b"you asked for " + target, repr(broken).encode()
        return b"you asked for " + target, answer.body

    def close(self) -> None:
        """Leaves."""
        self._client.close()


def _answers(
    case: Case, plane: DevProcess, client: RawClient
) -> tuple[list[Answer], Ending, bytes]:
    answers: list[Answer] = []
    is_head = case.send.startswith(b"HEAD ")
    try:
        for number in range(len(case.expected.answers)):
            answers.append(client.answer(to_head=is_head and number == 0))  # noqa: PERF401
    except Broken as broken:
        if broken.answer is not None:
            answers.append(broken.answer)
        return answers, client.rest()[1] if case.expected.is_whole else "cut", b""
    if case.expected.ending != "kept":
        surplus, ending = client.rest()
        return answers, ending, surplus
    target = PROBE
    try:
        if case.probe:
            answer = client.answer()
        else:
            target = PROBE + b"/late"
            answer = client.ask(_fill(b"GET " + target + b" HTTP/1.1\r\n{who}\r\n", plane))
    except (Broken, OSError):
        return answers, "closed", b""
    is_right = (answer.status, answer.body) == (200, b"you asked for " + target)
    return answers, "kept", b"" if is_right else repr(answer).encode()


def _forwarded(case: Case, process: RecordingProcess, begun: int) -> list[Received]:
    ours = (OTHER,) if case.expected.ending != "kept" else (OTHER, PROBE)
    if case.expected.unfinished is not None:
        # The connection of a request that was given up is closed; that may be seen a little later.
        deadline = time.monotonic() + 5
        while process.unfinished() and time.monotonic() < deadline:
            time.sleep(0.005)
    found = [*process.received[begun:], *process.unfinished()]
    return [request for request in found if not request.target.startswith(ours)]


def _reply(case: Case, request: Received) -> Reply:
    if case.reply is not None and request.target.startswith(CASE):
        return case.reply
    if request.target.startswith((CASE, PROBE, OTHER)):
        return echo(request)
    return ok(b"what is this?")


def _fill(data: bytes, plane: DevProcess) -> bytes:
    data = data.replace(b"{who}", b"Host: a\r\napi-key: {key}\r\n")
    return data.replace(b"{key}", plane.key.encode())


def _case(raw: dict[str, Any], *, is_refused: bool) -> Case:
    reply = raw.pop("reply", None)
    pieces = reply if isinstance(reply, list) else [reply]
    then: Literal["keep", "close", "reset"] = raw.pop("then", "keep")
    when: Literal["end", "head"] = raw.pop("when", "end")
    send = raw.pop("send")
    own = {
        "name": raw.pop("name"),
        "why": raw.pop("why"),
        "send": _bytes(send),
        "probe": raw.pop("probe", True),
        "hang_up": raw.pop("hang_up", False),
        "is_cut": raw.pop("is_cut", True),
        "is_refused": is_refused,
        "reply": None
        if reply is None
        else Reply(pieces=tuple(_bytes(p) for p in pieces), then=then, when=when),
    }
    with contextlib.suppress(KeyError):
        raw["body"] = _bytes(raw["body"])
    for key in ("has", "lacks", "forwarded"):
        raw[key] = tuple(_bytes(part) for part in raw.get(key, ()))
    if "unfinished" in raw:
        raw["unfinished"] = _bytes(raw["unfinished"])
    raw["answers"] = tuple(raw["answers"])
    return Case(expected=Expected(**raw), **own)


def _bytes(part: str | dict[str, Any] | list[Any]) -> bytes:
    if isinstance(part, str):
        return part.encode("latin-1")
    if isinstance(part, list):
        return b"".join(map(_bytes, part))
    return _bytes(part["repeat"]) * int(part["times"])
