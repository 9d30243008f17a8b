"""What crossed a proxy, what should have, and the difference between the two.

Nothing here knows how a message looks on the wire of the client: a runner for HTTP/1 and one for
HTTP/2 fill in the same :class:`Observed`, and :func:`problems` judges both alike. The side of the
user process is bytes, because what it received is to be known to the byte.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

Ending = Literal["closed", "cut", "kept"]
"""How a connection (or a stream) was left.

``closed``: with a close-notify (or GOAWAY): meant. ``cut``: without (or with a reset). ``kept``:
the next request on it is served.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One response as the client got it, interim ones included."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    is_whole: bool = True

    def header(self, name: bytes) -> bytes | None:
        """The values of this name in any letter case, joined; none when there is none."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return b" | ".join(found) if found else None


@dataclasses.dataclass(frozen=True, slots=True)
class Received:
    """One request as the user process got it: every byte, and whether its end was among them."""

    connection: int
    raw: bytes
    is_whole: bool

    @property
    def target(self) -> bytes:
        """What was asked for; empty when the first line has no such thing."""
        words = self.raw.split(b"\r\n", 1)[0].split(b" ")
        return words[1] if len(words) > 1 else b""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What happened.

    Args:
        answers: To the case, in order.
        ending: Of the client's connection after them.
        surplus: Bytes behind the last answer that belong to none.
        forwarded: Requests that the user process received because of the case.
        others: Pairs of what another client should have got and got, before and after the case.
    """

    answers: Sequence[Answer]
    ending: Ending
    surplus: bytes
    forwarded: Sequence[Received]
    others: Sequence[tuple[bytes, bytes]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What should happen.

    Args:
        answers: Status codes, interim ones included.
        message: The data plane's own words in the last answer; ``None`` when it is no refusal of
            the data plane, or its words are not the point.
        body: Body of the last answer; ``None`` when it is not the point.
        is_whole: Whether the last answer comes to its end.
        ending: Of the client's connection.
        has: Header lines of the last answer.
        lacks: Names of headers that the last answer does not have.
        forwarded: Whole requests, in order, with ``{added}`` for the lines that the data plane adds
            and ``{ctx}`` for a context id.
        unfinished: When it is set, one request without its end may arrive too, with no byte that is
            not the start of this.
    """

    answers: tuple[int, ...]
    message: str | None = None
    body: bytes | None = None
    is_whole: bool = True
    ending: Ending = "closed"
    has: tuple[bytes, ...] = ()
    lacks: tuple[bytes, ...] = ()
    forwarded: tuple[bytes, ...] = ()
    unfinished: bytes | None = None


def problems(
    expected: Expected, observed: Observed, *, is_rechunked: bool = False
) -> Iterator[str]:
    """Every way in which what happened is not what should have; nothing when all is well.

    With ``is_rechunked`` it does not matter into which chunks a forwarded body is divided: that
    follows the reads of the proxy, and so the network, when a request comes in pieces.
    """
    statuses = tuple(answer.status for answer in observed.answers)
    if statuses != expected.answers:
        yield f"answered {statuses}, not {expected.answers}: {list(observed.answers)}"
    if observed.ending != expected.ending:
        yield f"the connection was {observed.ending}, not {expected.ending}"
    if observed.surplus:
        yield f"bytes behind the last answer: {observed.surplus!r}"
    if observed.answers:
        yield from _last(expected, observed.answers[-1])
    for answer in observed.answers[:-1]:
        if not answer.is_whole:
            yield f"an answer before the last broke off: {answer}"
    yield from _forwarded(expected, observed, joined if is_rechunked else bytes)
    for mine, got in observed.others:
        if mine != got:
            yield f"another client should have got {mine!r} and got {got!r}"


def refusal_problems(answer: Answer) -> Iterator[str]:
    """What is missing of what every answer of the data plane itself has (data-plane.md §3)."""
    if answer.header(b"content-type") != b"application/json":
        yield f"a refusal is JSON: {answer}"
    if not re.fullmatch(rb"[0-9A-F]{32}", answer.header(b"x-evervault-ctx") or b""):
        yield f"a refusal has a context id: {answer}"
    if not message_of(answer):
        yield f"a refusal has a message: {answer}"


def message_of(answer: Answer) -> str | None:
    """The words of a refusal; none when the body is not exactly one message."""
    try:
        found = json.loads(answer.body)
    except ValueError:
        return None
    return found["message"] if isinstance(found, dict) and list(found) == ["message"] else None


def joined(raw: bytes) -> bytes:
    """A chunked request with its data in one piece, and ``<end>`` where its last chunk is."""
    head, empty_line, rest = raw.partition(b"\r\n\r\n")
    if not head.endswith(b"Transfer-Encoding: chunked"):
        return raw
    data = b""
    while b"\r\n" in rest:
        size, _, rest = rest.partition(b"\r\n")
        if int(size, 16) == 0:
            return head + empty_line + data + b"<end>" + rest
        data += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    return head + empty_line + data


def _last(expected: Expected, last: Answer) -> Iterator[str]:
    if last.is_whole != expected.is_whole:
        yield f"the last answer is {'' if last.is_whole else 'not '}whole: {last}"
    if expected.message is not None:
        yield from refusal_problems(last)
        if message_of(last) != expected.message:
            yield f"the message is {last.body!r}, not {expected.message!r}"
    if expected.body is not None and last.body != expected.body:
        yield f"the body is {last.body[:200]!r}, not {expected.body[:200]!r}"
    lines = {key.lower() + b": " + value for key, value in (*last.headers, *last.trailers)}
    for line in expected.has:
        if line not in lines:
            yield f"the answer has no {line!r}: {last}"
    for name in expected.lacks:
        if last.header(name) is not None:
            yield f"the answer has {name!r}: {last}"


def _forwarded(
    expected: Expected, observed: Observed, form: Callable[[bytes], bytes]
) -> Iterator[str]:
    contexts = {answer.header(b"x-evervault-ctx") for answer in observed.answers}
    whole = []
    unfinished = []
    for request in observed.forwarded:
        context = re.search(rb"\r\nx-evervault-ctx: [^\r]*?([0-9A-F]{32})\r\n", request.raw)
        if request.is_whole and context and context[1] not in contexts:
            yield f"a request was forwarded under an id that no answer has: {request}"
        (whole if request.is_whole else unfinished).append(form(normalized(request.raw)))
    if whole != [form(request) for request in expected.forwarded]:
        yield f"the user process received {whole}, not {list(expected.forwarded)}"
    if expected.unfinished is None:
        if unfinished:
            yield f"the user process received parts of requests: {unfinished}"
    elif len(unfinished) > 1 or not form(expected.unfinished).startswith(*unfinished or (b"",)):
        yield f"the user process received {unfinished}, not a start of {expected.unfinished!r}"


def normalized(raw: bytes) -> bytes:
    """A forwarded request with placeholders for what differs from run to run."""
    raw = re.sub(_ADDED, b"{added}", raw, count=1)
    return re.sub(rb"(?<=[ ;])[0-9A-F]{32}\r\n", b"{ctx}\r\n", raw)


_ADDED = (
    rb"X-Forwarded-For: 127\.0\.0\.1\r\nX-Forwarded-Proto: https\r\n"
    rb"Forwarded: for=127\.0\.0\.1;proto=https\r\nx-evervault-ctx: [0-9A-F]{32}\r\n"
)
