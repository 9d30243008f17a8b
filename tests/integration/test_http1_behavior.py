"""What an application behind the data plane may rely on that only shows in time, or behind a relay.

Messages as such are in the corpus of ``tests/vectors/http1`` and in ``rust/devplane/tests/engine``.
"""

import itertools
import json
import pathlib
import signal
import socket
import struct
import time

import pytest
from tests.support.application import wait_until
from tests.support.dev_process import DevProcess, dev_process
from tests.support.exchanges import Received
from tests.support.raw_client import Broken
from tests.support.recording_process import Reply, echo, ok, recording

PAUSE_S, EVENTS = 0.3, 5
EVENT_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"


@pytest.mark.parametrize("framing", ["chunked", "until-close"])
def test_each_event_arrives_before_the_next_is_sent(tmp_path: pathlib.Path, framing: str) -> None:
    """Server-sent events: what is buffered until there is more of it is of no use to anybody."""
    events = [b"id: %d\ndata: event %d\n\n" % (number, number) for number in range(EVENTS)]
    if framing == "chunked":
        pieces = [b"%x\r\n" % len(event) + event + b"\r\n" for event in events]
        head, tail = EVENT_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", [b"0\r\n\r\n"]
    else:
        pieces, head, tail = events, EVENT_HEAD + b"\r\n", []
    reply = Reply(pieces=(head, *pieces, *tail), pause_s=PAUSE_S, then="close")
    with (
        recording(lambda _: reply) as process,
        dev_process(process.address, tmp_path) as plane,
        plane.client() as client,
    ):
        client.send(_get(plane, "/events", "Accept: text/event-stream"))
        seen, came = b"", []
        while len(came) < EVENTS:
            seen += client.read_some()
            came += [time.monotonic()] * (seen.count(b"data: ") - len(came))
        gaps = [later - earlier for earlier, later in itertools.pairwise(came)]
        # As far apart as they were sent: none waited for the one behind it.
        assert all(PAUSE_S / 3 < gap < 2 * PAUSE_S for gap in gaps), gaps


def test_a_body_is_passed_on_while_it_is_being_sent(tmp_path: pathlib.Path) -> None:
    """The other way: the user process has the first part before the second is there."""
    with (
        recording() as process,
        dev_process(process.address, tmp_path) as plane,
        plane.client() as client,
    ):
        client.send(_get(plane, "/up", "Content-Type: image/png", "Content-Length: 6", "POST"))
        for part, so_far in ((b"abc", b"\r\n\r\nabc"), (b"d", b"\r\n\r\nabcd")):
            client.send(part)
            wait_until(lambda: [r for r in process.unfinished() if r.raw.endswith(so_far)])  # noqa: B023
        assert client.ask(b"ef").status == 200


def test_two_sides_talk_at_once(tmp_path: pathlib.Path) -> None:
    """An answer that begins before the request is over reaches the client meanwhile."""
    early = Reply(
        pieces=(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n",),
        when="head",
    )
    with (
        recording(lambda _: early) as process,
        dev_process(process.address, tmp_path) as plane,
        plane.client() as client,
    ):
        client.send(_get(plane, "/", "Content-Type: image/png", "Content-Length: 6", "POST"))
        seen = b""
        while b"early" not in seen:
            seen += client.read_some()
        client.send(b"abc")
        wait_until(lambda: [r for r in process.unfinished() if r.raw.endswith(b"\r\n\r\nabc")])


@pytest.mark.parametrize(
    ("source", "forwarded_for", "forwarded"),
    [
        ("192.0.2.7", "192.0.2.7", "for=192.0.2.7;proto=https"),
        ("2001:db8::7", "2001:db8::7", 'for="[2001:db8::7]";proto=https'),
        ("::ffff:192.0.2.7", "192.0.2.7", "for=192.0.2.7;proto=https"),
    ],
)
def test_the_address_of_a_proxy_header_is_forwarded_and_logged(
    tmp_path: pathlib.Path, source: str, forwarded_for: str, forwarded: str
) -> None:
    logs = tmp_path / "trx.ndjson"
    with (
        recording() as process,
        dev_process(process.address, tmp_path, "--proxy-protocol", "--logs", str(logs)) as plane,
        plane.client(_proxy_v2(source)) as client,
    ):
        request = _get(plane, "/", "X-Forwarded-For: 10.0.0.1", "Forwarded: for=10.0.0.1")
        assert client.ask(request).status == 200
        lines = process.received[-1].raw.decode().split("\r\n")
        assert f"X-Forwarded-For: 10.0.0.1, {forwarded_for}" in lines
        assert f"Forwarded: for=10.0.0.1, {forwarded}" in lines
        wait_until(lambda: logs.exists() and logs.read_text())
        assert json.loads(logs.read_text())["remoteIp"] == forwarded_for


def test_a_drain_lets_requests_finish_says_so_and_takes_no_more(tmp_path: pathlib.Path) -> None:

    def script(request: Received) -> Reply:
        if request.target == b"/slow":
            return Reply(
                pieces=(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n", b"\r\ndone"), pause_s=1.5
            )
        return echo(request)

    with recording(script) as process, dev_process(process.address, tmp_path) as plane:
        with plane.client() as busy, plane.client() as idle:
            assert idle.ask(_get(plane, "/")).status == 200
            busy.send(_get(plane, "/slow"))
            wait_until(lambda: any(r.target == b"/slow" for r in process.received))
            plane.process.send_signal(signal.SIGTERM)
            # Who waits for nothing is let go at once, and nobody new is let in.
            assert idle.rest() == (b"", "closed")
            wait_until(lambda: _is_refused(plane.address))
            answer = busy.answer()
            assert (answer.status, answer.body) == (200, b"done")
            assert answer.header(b"connection") == b"close"
            assert busy.rest() == (b"", "closed")
        assert plane.process.wait(timeout=10) == 0


def test_a_user_process_that_comes_back_is_used_again(tmp_path: pathlib.Path) -> None:
    """A connection of the pool that it closed is noticed, and not taken for an answer."""
    with (
        recording() as process,
        dev_process(process.address, tmp_path) as plane,
        plane.client() as client,
    ):
        for _ in range(3):
            assert client.ask(_get(plane, "/again")).body == b"you asked for /again"
            process.hang_up()
            wait_until(lambda: not process.open)
        assert len({request.connection for request in process.received}) == 3


def test_what_was_asked_of_a_connection_that_dies_is_said_in_time(tmp_path: pathlib.Path) -> None:
    """A reset inside a head is a 502, inside a body an end that does not look meant."""
    replies = {
        b"/head": Reply(pieces=(b"HTTP/1.1 200 OK\r\nX: ", b""), then="reset"),
        b"/body": Reply(
            pieces=(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal", b""), then="reset"
        ),
    }
    with (
        recording(lambda request: replies.get(request.target, ok(b"x"))) as process,
        dev_process(process.address, tmp_path) as plane,
    ):
        begun = time.monotonic()
        with plane.client() as client:
            assert client.ask(_get(plane, "/head")).status == 502
        with plane.client() as client, pytest.raises(Broken):
            client.ask(_get(plane, "/body"))
        assert time.monotonic() - begun < 2
        with plane.client() as client:
            assert client.ask(_get(plane, "/other")).status == 200


def _get(plane: DevProcess, target: str, *lines: str) -> bytes:
    method = "GET"
    if lines and lines[-1] == "POST":
        method, lines = "POST", lines[:-1]
    head = [f"{method} {target} HTTP/1.1", "Host: a", f"api-key: {plane.key}", *lines]
    return ("\r\n".join(head) + "\r\n\r\n").encode()


def _proxy_v2(source: str) -> bytes:
    """A header as HAProxy writes it (proxy-protocol.txt, 2.2), with a TLV behind the addresses."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    there = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, there)
    block = addresses + struct.pack("!HH", 4000, 443) + b"\x04\x00\x03abc"
    kind = 0x21 if family == socket.AF_INET6 else 0x11
    return b"\r\n\r\n\x00\r\nQUIT\n" + bytes([0x21, kind]) + struct.pack("!H", len(block)) + block


def _is_refused(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return True
    return False
