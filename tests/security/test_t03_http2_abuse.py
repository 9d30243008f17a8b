"""T-03 over HTTP/2: frames that cost more to take than to send, and answers that are not taken.

Each is played by hand-made frames against the real process, while another client asks all the
while; memory is that of the process at its highest, from the kernel. Each has a twin: the same kind
of frames in a decent number, after which the connection serves the next request.
"""

import dataclasses
import itertools
import pathlib
import struct
import time
from collections.abc import Callable, Iterator

import pytest
from hyperframe import frame as frames
from tests.support import raw_http2
from tests.support.application import wait_until
from tests.support.bystander import bystander
from tests.support.dev_process import DevProcess, dev_process
from tests.support.raw_http2 import RawHttp2, block_of, data_frame, get, post, reset, update
from tests.support.recording_process import RecordingProcess, Reply, echo, ok, recording

MIB = 1 << 20
STREAMS, RESETS = 50, 100
LIMITS = f"""[limits]
head_timeout = 3000
body_idle = 2000
h2_streams = {STREAMS}
h2_resets = {RESETS}
"""
# Eight are allowed, and what the two sockets and TLS hold comes on top.
MOST = 20 * MIB
# More than any flood here is allowed to get through.
ENDLESS = 64 * MIB


@pytest.fixture(scope="module")
def process() -> Iterator[RecordingProcess]:
    with recording() as running:
        yield running


@pytest.fixture(scope="module")
def plane(
    process: RecordingProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DevProcess]:
    folder: pathlib.Path = tmp_path_factory.mktemp("t03")
    with dev_process(process.address, folder, tables=LIMITS) as running:
        yield running


@pytest.fixture(autouse=True)
def _is_as_before(plane: DevProcess, process: RecordingProcess) -> Iterator[None]:
    """Nothing of an attack is left behind: no request in flight, no connection."""
    process.script = echo
    yield
    wait_until(lambda: plane.metric("requests_open") == 0)


def client_of(plane: DevProcess, *, is_reading: bool = True, **settings: int) -> RawHttp2:
    """A connection; settings by the names of ``hyperframe``."""
    numbers = {getattr(frames.SettingsFrame, key.upper()): value for key, value in settings.items()}
    return RawHttp2(plane.address, plane.ca_file, numbers, is_reading=is_reading)


def serves(client: RawHttp2, plane: DevProcess) -> bool:
    """Whether the next request is answered."""
    return client.answer(client.ask(get(plane.key, b"/next"))).status == 200


@dataclasses.dataclass(frozen=True, slots=True)
class Flood:
    """Frames without an end.

    Args:
        pieces: What is sent, from a client that may have asked for something before.
        code: Of the GOAWAY that ends it.
        most: Bytes that it may get through.
        twin: How many pieces are decent.
    """

    pieces: Callable[[RawHttp2, DevProcess], Iterator[bytes]]
    code: int
    most: int
    twin: int = 10


def _same(frame: frames.Frame, times: int = 100) -> Iterator[bytes]:
    return itertools.repeat(frame.serialize() * times)


def _empty_data(client: RawHttp2, plane: DevProcess) -> Iterator[bytes]:
    number = client.ask(post(plane.key, b"/upload"), is_over=False)
    yield from _same(data_frame(number, b""), 50)


def _padding(client: RawHttp2, plane: DevProcess) -> Iterator[bytes]:
    number = client.ask(post(plane.key, b"/upload"), is_over=False)
    yield from _same(frames.DataFrame(number, b"", pad_length=255, flags=["PADDED"]), 50)


def _single_bytes(client: RawHttp2, plane: DevProcess) -> Iterator[bytes]:
    number = client.ask(post(plane.key, b"/upload"), is_over=False)
    yield from _same(data_frame(number, b"x"))


def _windows(client: RawHttp2, plane: DevProcess) -> Iterator[bytes]:
    del client, plane
    yield from _same(update(0, 1))


def _priorities(client: RawHttp2, plane: DevProcess) -> Iterator[bytes]:
    del client, plane
    for number in itertools.cycle(range(1, 100_000, 2)):
        yield frames.PriorityFrame(number, depends_on=number + 2).serialize() * 100


def _reset_at_once(client: RawHttp2, plane: DevProcess) -> Iterator[bytes]:
    while True:
        number = client.new_stream()
        yield client.head(number, get(plane.key), is_over=True) + reset(number).serialize()


FLOODS = {
    "ping": Flood(
        lambda *_: _same(frames.PingFrame(0, b"12345678")),
        raw_http2.ENHANCE_YOUR_CALM,
        MOST,
    ),
    "settings": Flood(
        lambda *_: _same(frames.SettingsFrame(0, settings={1: 4096})),
        raw_http2.ENHANCE_YOUR_CALM,
        MOST,
        twin=1,
    ),
    "empty-settings": Flood(
        lambda *_: _same(frames.SettingsFrame(0)), raw_http2.ENHANCE_YOUR_CALM, MOST, twin=1
    ),
    "acknowledgements": Flood(
        lambda *_: _same(frames.PingFrame(0, b"12345678", flags=["ACK"])),
        raw_http2.ENHANCE_YOUR_CALM,
        MOST,
    ),
    "window-update": Flood(_windows, raw_http2.ENHANCE_YOUR_CALM, MOST),
    "priority": Flood(_priorities, raw_http2.ENHANCE_YOUR_CALM, MOST),
    "unknown-frames": Flood(
        lambda *_: itertools.repeat((b"\0\0\x08\xfa\0\0\0\0\0" + b"x" * 8) * 100),
        raw_http2.ENHANCE_YOUR_CALM,
        MOST,
    ),
    "empty-data": Flood(_empty_data, raw_http2.ENHANCE_YOUR_CALM, MOST, twin=1),
    "padding": Flood(_padding, raw_http2.ENHANCE_YOUR_CALM, MOST, twin=1),
    "single-bytes-of-data": Flood(_single_bytes, raw_http2.ENHANCE_YOUR_CALM, MOST),
    "reset-at-once": Flood(_reset_at_once, raw_http2.ENHANCE_YOUR_CALM, 8 * MIB),
}


def test_a_client_that_takes_no_pong_is_left_after_body_idle(plane: DevProcess) -> None:
    """Not after what TLS still had room for, time and again."""
    with (
        bystander(plane),
        RawHttp2(plane.address, plane.ca_file, receive_buffer=64 * 1024) as client,
    ):
        begun = time.monotonic()
        client.flood(_same(frames.PingFrame(0, b"12345678")), seconds=15, reads=False)
        assert client.is_closed
        assert time.monotonic() - begun < 6
    with client_of(plane) as client:
        client.flood(itertools.islice(_same(frames.PingFrame(0, b"12345678")), 10))
        assert client.is_alive()


@pytest.mark.parametrize("reads", [True, False], ids=["reading", "not-reading"])
@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_ends_its_connection_and_costs_nobody_else(
    *,
    kind: str,
    reads: bool,
    plane: DevProcess,
    record: Callable[[str], None],
) -> None:
    flood = FLOODS[kind]
    room = None if reads else 64 * 1024
    # A client that is not scheduled for a while loses the GOAWAY to the reset behind it.
    for _ in range(3):
        plane.forget_peak()
        before, spent = plane.memory(), plane.processor_seconds()
        with (
            bystander(plane),
            RawHttp2(plane.address, plane.ca_file, receive_buffer=room) as client,
        ):
            pieces = flood.pieces(client, plane)
            sent = 0
            while not client.is_closed and sent < ENDLESS:
                sent += client.flood(itertools.islice(pieces, 10_000), reads=reads)
            client.wait(lambda: client.is_closed)
        rise = plane.memory("VmHWM") - before
        spent = plane.processor_seconds() - spent
        record(f"{kind}: {sent / MIB:.1f} MiB sent, {rise / MIB:.1f} MiB more, {spent:.2f} s")
        assert sent < flood.most, "it was still being read"
        assert rise < 8 * MIB
        if not reads or client.goaway is not None:
            break
    if reads:
        assert client.goaway == flood.code
    # The twin.
    with client_of(plane) as client:
        client.flood(itertools.islice(flood.pieces(client, plane), flood.twin))
        assert serves(client, plane)
        assert client.goaway is None


def test_requests_taken_back_one_after_the_other_are_counted(
    plane: DevProcess, process: RecordingProcess
) -> None:
    """Each waits until the user process has it, so that no queue of the protocol sees a flood."""
    process.script = lambda request: (
        Reply(pieces=(b"", ok(b"late").pieces[0]), pause_s=5)
        if request.target == b"/slow"
        else echo(request)
    )

    def take_back(client: RawHttp2, count: int) -> int:
        for done in range(count):
            begun = len(process.received)
            number = client.new_stream()
            client.try_send(client.head(number, get(plane.key, b"/slow"), is_over=True))
            ends = time.monotonic() + 1
            while len(process.received) == begun and time.monotonic() < ends:
                client.wait(lambda: False, 0.001)
            if client.is_closed or not client.try_send(reset(number)):
                return done
        return count

    with bystander(plane), client_of(plane) as client:
        done = take_back(client, RESETS * 3)
        client.wait(lambda: client.is_closed, 5)
        assert RESETS <= done < RESETS * 2
        assert client.goaway == raw_http2.ENHANCE_YOUR_CALM
    with client_of(plane) as client:
        assert take_back(client, RESETS // 2) == RESETS // 2
        assert serves(client, plane)


@pytest.mark.parametrize("size", [0, 1, 16_000])
def test_continuation_without_an_end_costs_its_limit_and_no_more(
    size: int, plane: DevProcess
) -> None:
    # A literal with a value of 16 MiB that never comes to its end, or nothing at all.
    start = b"\x10\x01x\x7f\x81\xff\xff\x07" if size else b""
    begin = frames.HeadersFrame(1, data=start).serialize()
    more = frames.ContinuationFrame(1, data=b"y" * size).serialize()
    plane.forget_peak()
    before = plane.memory()
    with bystander(plane), client_of(plane) as client:
        client.new_stream()
        client.send(begin)
        sent = client.flood(itertools.repeat(more * (100 if size < 10 else 1), 10_000))
        client.wait(lambda: client.is_closed)
        assert client.goaway in {raw_http2.ENHANCE_YOUR_CALM, raw_http2.PROTOCOL_ERROR}
    # Its limit, and what is read on and forgotten so that the GOAWAY arrives (h2/linger.rs: 4 MiB).
    assert sent < 5 * MIB
    assert plane.memory("VmHWM") - before < 8 * MIB
    # The twin: a head in five frames.
    with client_of(plane) as client:
        block = block_of(get(plane.key, b"/next", (b"x-a", b"y" * 1000)))
        size = len(block) // 4
        cuts = [block[at : at + size] for at in range(0, len(block), size)]
        number = client.new_stream()
        client.send(frames.HeadersFrame(number, data=cuts[0], flags=["END_STREAM"]))
        for part in cuts[1:-1]:
            client.send(frames.ContinuationFrame(number, data=part))
        client.send(frames.ContinuationFrame(number, data=cuts[-1], flags=["END_HEADERS"]))
        assert client.answer(number).status == 200


def _bomb(plane: DevProcess, references: int) -> tuple[bytes, bytes]:
    """A head whose block puts 4 000 bytes into the table, and one that names them many times."""
    plain = block_of(get(plane.key, b"/next"))
    name, value = b"\x03x-a", b"y" * 3900
    entry = b"\x40" + name + b"\x7f" + _integer(len(value) - 127) + value
    return plain + entry, plain + b"\xbe" * references


def _integer(value: int) -> bytes:
    """The rest of an HPACK integer (RFC 7541 §5.1)."""
    out = b""
    while value >= 128:
        out += bytes([value % 128 | 128])
        value //= 128
    return out + bytes([value])


def test_a_header_list_that_unfolds_costs_its_limit_and_no_more(plane: DevProcess) -> None:
    first, many = _bomb(plane, 16_000)
    plane.forget_peak()
    before = plane.memory()
    with bystander(plane):
        for _ in range(20):
            with client_of(plane) as client:
                for block in (first, many, many, many):
                    number = client.new_stream()
                    flags = ["END_HEADERS", "END_STREAM"]
                    if not client.try_send(frames.HeadersFrame(number, data=block, flags=flags)):
                        break
                    client.answer(number, 5)
                # 16 000 times 3 900 bytes are 60 MiB.
                assert client.streams[3].status in {None, 431}
                assert client.streams[3].is_done or client.is_closed
    assert plane.memory("VmHWM") - before < 8 * MIB
    # The twin: ten references are 40 KB, which is below the limit.
    first, few = _bomb(plane, 10)
    with client_of(plane) as client:
        for block in (first, few):
            number = client.new_stream()
            client.send(
                frames.HeadersFrame(number, data=block, flags=["END_HEADERS", "END_STREAM"])
            )
            assert client.answer(number).status == 200
        seen = client.streams[number].answers[-1].body
        assert seen == b"you asked for /next"


@pytest.mark.parametrize("size", [70_000, 80_000, 200_000, 1_000_000])
def test_a_head_over_the_limit_is_answered_or_refused_and_the_connection_goes_on(
    size: int, plane: DevProcess
) -> None:
    with client_of(plane) as client:
        lines = [(b"x-%d" % number, b"y" * 4000) for number in range(size // 4000 + 1)]
        number = client.new_stream()
        client.try_send(client.head(number, get(plane.key, b"/case", *lines), is_over=True))
        stream = client.answer(number, 5)
        assert stream.status in {None, 431}
        if size <= 80_000:
            assert stream.status == 431
            assert stream.answers[-1].header(b"content-type") == b"application/json"
            assert stream.answers[-1].header(b"x-evervault-ctx")
            assert serves(client, plane)
        else:
            assert stream.is_done or client.is_closed
    with client_of(plane) as client:
        few = [(b"x-%d" % number, b"y" * 4000) for number in range(15)]
        assert client.answer(client.ask(get(plane.key, b"/case", *few))).status == 200


def test_more_streams_than_allowed_are_refused_and_the_others_answered(
    plane: DevProcess, process: RecordingProcess
) -> None:
    process.script = lambda request: (
        Reply(pieces=(b"", ok(b"late").pieces[0]), pause_s=1)
        if request.target == b"/slow"
        else echo(request)
    )
    with client_of(plane) as client:
        numbers = [client.ask(get(plane.key, b"/slow")) for _ in range(STREAMS + 10)]
        streams = [client.answer(number) for number in numbers]
        assert [stream.status for stream in streams[:STREAMS]] == [200] * STREAMS
        assert {stream.reset for stream in streams[STREAMS:]} == {raw_http2.REFUSED_STREAM}
        assert client.settings[frames.SettingsFrame.MAX_CONCURRENT_STREAMS] == STREAMS
        assert serves(client, plane)


def test_a_response_that_is_not_taken_is_given_up(
    plane: DevProcess, process: RecordingProcess, record: Callable[[str], None]
) -> None:
    """Fifty downloads of 2 MiB into windows that are never opened: 100 MiB that must not gather."""
    big = ok(b"z" * (2 * MIB))
    process.script = lambda request: big if request.target == b"/big" else echo(request)
    with bystander(plane), client_of(plane, is_reading=False) as client:
        plane.forget_peak()
        before = plane.memory()
        begun = time.monotonic()
        numbers = [client.ask(get(plane.key, b"/big")) for _ in range(STREAMS)]
        for number in numbers:
            stream = client.answer(number, 10)
            assert stream.status == 200
            assert stream.reset is not None
            assert not stream.is_over
        took = time.monotonic() - begun
        rise = plane.memory("VmHWM") - before
        record(f"{rise / STREAMS / 1024:.0f} KiB each, given up after {took:.1f} s")
        assert took < 8
        assert rise < STREAMS * 512 * 1024
        # The window of the connection is used up; one update later it serves again.
        client.send(update(0, 1 << 20))
        assert serves(client, plane)
    with client_of(plane) as client:
        taken = client.answer(client.ask(get(plane.key, b"/big")))
        assert len(taken.answers[-1].body) == 2 * MIB


def test_frames_that_go_with_a_long_response_are_no_flood(
    plane: DevProcess, process: RecordingProcess
) -> None:
    """The twin of a flood of updates: what is being carried counts while it is, not at its end."""
    body = b"z" * (4 * MIB)
    process.script = lambda _request: ok(body)
    with client_of(plane, is_reading=False) as client:
        number = client.ask(get(plane.key))
        client.send(update(number, 8 * MIB), update(0, 3 * MIB))
        assert client.wait(lambda: len(client.streams[number].body) >= 3 * MIB)
        updates = update(0, 1).serialize() * 100
        sent = client.flood(itertools.repeat(updates, 7_000))
        assert sent == 7_000 * len(updates) > 8 * MIB
        assert not client.streams[number].is_done
        client.send(update(0, 2 * MIB))
        assert bytes(client.answer(number).body) == body
        assert client.goaway is None


def test_a_window_of_nothing_from_the_start_is_given_up_too(plane: DevProcess) -> None:
    with client_of(plane, is_reading=False, initial_window_size=0) as client:
        begun = time.monotonic()
        number = client.ask(get(plane.key, b"/case"))
        stream = client.answer(number, 10)
        assert stream.status == 200
        assert stream.reset is not None
        assert 1.5 < time.monotonic() - begun < 8
        late = client.ask(get(plane.key, b"/case"))
        client.wait(lambda: client.streams[late].status is not None)
        client.send(update(late, 100))
        assert client.answer(late).answers[-1].body == b"you asked for /case"


def _raw(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    length = len(payload)
    return struct.pack(">BHBBI", length >> 16, length & 0xFFFF, kind, flags, number) + payload


GET_1 = 0x05  # END_STREAM and END_HEADERS
# Where RFC 9113 names FRAME_SIZE_ERROR, FLOW_CONTROL_ERROR or COMPRESSION_ERROR, `h2` says this one
# of a frame that it cannot read.
BROKEN = raw_http2.PROTOCOL_ERROR
MALFORMED = {
    "data-on-stream-0": (_raw(0, 0, 0, b"x"), raw_http2.PROTOCOL_ERROR),
    "data-on-an-idle-stream": (_raw(0, 0, 9, b"x"), raw_http2.PROTOCOL_ERROR),
    "headers-on-stream-0": (_raw(1, GET_1, 0, b"\x82"), raw_http2.PROTOCOL_ERROR),
    "headers-on-an-even-stream": (_raw(1, GET_1, 2, b"\x82"), raw_http2.PROTOCOL_ERROR),
    "a-reset-of-an-idle-stream": (_raw(3, 0, 9, bytes(4)), raw_http2.PROTOCOL_ERROR),
    "a-reset-of-stream-0": (_raw(3, 0, 0, bytes(4)), raw_http2.PROTOCOL_ERROR),
    "a-short-reset": (_raw(3, 0, 9, bytes(3)), BROKEN),
    "settings-of-five-bytes": (_raw(4, 0, 0, bytes(5)), BROKEN),
    "settings-on-a-stream": (_raw(4, 0, 1, b""), raw_http2.PROTOCOL_ERROR),
    "an-acknowledgement-with-settings": (_raw(4, 1, 0, bytes(6)), BROKEN),
    "a-window-that-is-too-large": (
        _raw(4, 0, 0, b"\0\x04\x80\0\0\0"),
        BROKEN,
    ),
    "a-frame-size-that-is-too-small": (_raw(4, 0, 0, b"\0\x05\0\0\x3f\xff"), 1),
    "push-that-is-neither": (_raw(4, 0, 0, b"\0\x02\0\0\0\x02"), raw_http2.PROTOCOL_ERROR),
    "push-promise": (_raw(5, 4, 1, b"\0\0\0\x02\x82"), raw_http2.PROTOCOL_ERROR),
    "a-ping-of-seven-bytes": (_raw(6, 0, 0, bytes(7)), BROKEN),
    "a-ping-on-a-stream": (_raw(6, 0, 1, bytes(8)), raw_http2.PROTOCOL_ERROR),
    "an-update-of-an-idle-stream": (_raw(8, 0, 9, b"\0\0\0\1"), raw_http2.PROTOCOL_ERROR),
    "an-update-of-nothing": (_raw(8, 0, 0, bytes(4)), raw_http2.PROTOCOL_ERROR),
    "updates-over-the-top": (
        _raw(8, 0, 0, b"\x7f\xff\xff\xff") * 2,
        raw_http2.FLOW_CONTROL_ERROR,
    ),
    "continuation-of-nothing": (_raw(9, 4, 1, b"\x82"), raw_http2.PROTOCOL_ERROR),
    "a-frame-inside-a-block": (
        _raw(1, 1, 1, b"\x82") + _raw(6, 0, 0, bytes(8)),
        raw_http2.PROTOCOL_ERROR,
    ),
    "continuation-of-another-stream": (
        _raw(1, 1, 1, b"\x82") + _raw(9, 4, 3, b"\x87"),
        raw_http2.PROTOCOL_ERROR,
    ),
    "a-frame-over-16-kib": (_raw(6, 0, 0, bytes(16_385)), raw_http2.FRAME_SIZE_ERROR),
    "padding-over-the-frame": (_raw(1, GET_1 | 8, 1, b"\x09\x82"), raw_http2.PROTOCOL_ERROR),
    "an-index-that-is-not-there": (_raw(1, GET_1, 1, b"\xff\x7f"), BROKEN),
    "an-index-of-0": (_raw(1, GET_1, 1, b"\x80"), BROKEN),
    "a-table-over-the-limit": (
        _raw(1, GET_1, 1, b"\x3f\xe1\xff\x7f"),
        BROKEN,
    ),
    "an-integer-without-an-end": (
        _raw(1, GET_1, 1, b"\xff" + b"\xff" * 20),
        BROKEN,
    ),
    "huffman-with-a-wrong-end": (
        _raw(1, GET_1, 1, b"\x00\x81\xff\x81\x00"),
        BROKEN,
    ),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_frame_ends_its_connection_and_no_other(kind: str, plane: DevProcess) -> None:
    wire, code = MALFORMED[kind]
    with client_of(plane) as other, client_of(plane) as client:
        assert serves(other, plane)
        assert client.is_alive()
        client.try_send(wire)
        assert client.wait(lambda: client.is_closed, 5)
        assert client.goaway == code
        assert serves(other, plane)


@pytest.mark.parametrize(
    "wire",
    [
        _raw(0xFA, 0xFF, 0, b"whatever"),
        _raw(4, 0, 0, b"\x7a\x7a\0\0\0\1"),
        _raw(8, 0, 0, b"\0\0\0\1"),
        _raw(2, 0, 3, b"\0\0\0\0\x10"),
        _raw(4, 0, 0, b"\0\x05\0\0\x40\0"),
    ],
    ids=["unknown-frame", "unknown-setting", "update", "priority", "frame-size"],
)
def test_what_is_unusual_and_allowed_is_taken(wire: bytes, plane: DevProcess) -> None:
    """The twins of the malformed ones."""
    with client_of(plane) as client:
        client.send(wire)
        assert serves(client, plane)


def test_frames_behind_the_end_of_a_stream_end_at_most_the_connection(plane: DevProcess) -> None:
    with client_of(plane) as client:
        number = client.ask(get(plane.key, b"/case"))
        assert client.answer(number).status == 200
        client.try_send(data_frame(number, b"x"))
        ended = client.wait(
            lambda: client.goaway is not None or client.streams[number].reset is not None, 5
        )
        assert ended
        codes = {client.goaway, client.streams[number].reset} - {None}
        assert codes <= {raw_http2.STREAM_CLOSED, raw_http2.PROTOCOL_ERROR}
    with client_of(plane) as client:
        client.new_stream()
        client.new_stream()
        late = client.ask(get(plane.key, b"/case"))
        assert client.answer(late).status == 200
        client.try_send(client.head(1, get(plane.key, b"/case"), is_over=True))
        assert client.wait(lambda: client.goaway is not None, 5)


def test_bytes_that_are_no_preface_are_not_served(plane: DevProcess) -> None:
    with client_of(plane) as client:
        assert serves(client, plane)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw_http2, "PREFACE", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        with client_of(plane) as client:
            assert client.wait(lambda: client.is_closed, 5)
            assert not client.streams
