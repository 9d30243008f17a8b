"""A client that sends any frames of HTTP/2 over TLS: what no library would let one send.

Frames and header compression are those of ``hyperframe`` and ``hpack``; nothing is checked on the
way out. What comes back is put together by stream.
"""

import contextlib
import dataclasses
import pathlib
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Self

import hpack
from hyperframe import frame as frames
from tests.support.exchanges import Answer

TIMEOUT_S = 20.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 5, 6, 7, 8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11
MAX_FRAME = 16_384

Fields = Sequence[tuple[bytes, bytes]]


@dataclasses.dataclass(slots=True)
class Stream:
    """What came on one stream so far.

    Attributes:
        answers: Interim ones too.
        is_over: Whether the other side ended it.
        reset: The code it was reset with.
    """

    answers: list[Answer] = dataclasses.field(default_factory=list)
    body: bytearray = dataclasses.field(default_factory=bytearray)
    is_over: bool = False
    reset: int | None = None

    @property
    def is_done(self) -> bool:
        """Whether nothing else will come."""
        return self.is_over or self.reset is not None

    @property
    def status(self) -> int | None:
        """Of the last answer."""
        return self.answers[-1].status if self.answers else None

    def headers(self, fields: list[tuple[bytes, bytes]]) -> None:
        """Takes a header list: a head, or trailers."""
        if fields and fields[0][0] == b":status":
            status = int(fields[0][1])
            self.answers.append(Answer(status, tuple(fields[1:]), is_whole=status < 200))
        else:
            self.answers[-1] = dataclasses.replace(self.answers[-1], trailers=tuple(fields))

    def end(self) -> None:
        """The other side has no more."""
        self.is_over = True
        self.answers[-1] = dataclasses.replace(
            self.answers[-1], body=bytes(self.body), is_whole=True
        )


class RawHttp2:
    """One TLS connection of frames.

    Args:
        address: ``HOST:PORT``.
        ca_file: What the certificate has to lead to.
        settings: What it says of itself.
        is_reading: Whether it lets the other side send on as it reads.
        receive_buffer: Bytes that the kernel takes from the other side while nobody reads.

    Attributes:
        settings: What the other side said of itself.
        streams: What came, by stream.
        goaway: The code of the last GOAWAY.
        is_closed: Whether the connection was ended.
        pongs: Payloads of PING frames that came back.
    """

    def __init__(
        self,
        address: str,
        ca_file: str | pathlib.Path,
        settings: Mapping[int, int] | None = None,
        *,
        is_reading: bool = True,
        receive_buffer: int | None = None,
    ) -> None:
        host, _, port = address.rpartition(":")
        plain = socket.socket()
        plain.settimeout(TIMEOUT_S)
        if receive_buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.connect((host, int(port)))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = ssl.create_default_context(cafile=str(ca_file))
        context.set_alpn_protocols(["h2"])
        self.stream = context.wrap_socket(plain, server_hostname="localhost")
        assert self.stream.selected_alpn_protocol() == "h2"
        self.settings: dict[int, int] = {}
        self.streams: dict[int, Stream] = {}
        self.goaway: int | None = None
        self.is_closed = False
        self.pongs: list[bytes] = []
        self._is_reading = is_reading
        self._decoder = hpack.Decoder()
        self._decoder.max_header_list_size = 1 << 20
        self._ahead = bytearray()
        self._block: tuple[int, bool, bytearray] | None = None
        self._next = 1
        self.try_send(PREFACE + frames.SettingsFrame(0, settings=dict(settings or {})).serialize())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drops the connection."""
        self.stream.close()

    def new_stream(self) -> int:
        """The next number of a stream."""
        number, self._next = self._next, self._next + 2
        self.streams[number] = Stream()
        return number

    def ask(self, fields: Fields, *, is_over: bool = True) -> int:
        """Opens a stream with this header list and says its number."""
        number = self.new_stream()
        self.send(self.head(number, fields, is_over=is_over))
        return number

    def head(self, number: int, fields: Fields, *, is_over: bool) -> bytes:
        """HEADERS, and CONTINUATION as needed."""
        block = block_of(fields)
        parts = [block[at : at + MAX_FRAME] for at in range(0, len(block), MAX_FRAME)] or [b""]
        out = b""
        for index, part in enumerate(parts):
            kind = frames.ContinuationFrame if index else frames.HeadersFrame
            frame = kind(number, data=part)
            if index == len(parts) - 1:
                frame.flags.add("END_HEADERS")
            if index == 0 and is_over:
                frame.flags.add("END_STREAM")
            out += frame.serialize()
        return out

    def send(self, *parts: bytes | frames.Frame) -> None:
        """Sends frames, or bytes, all of them."""
        self.stream.sendall(_joined(parts))

    def try_send(self, *parts: bytes | frames.Frame) -> bool:
        """Sends what the other side may not want any more; false when it hung up."""
        try:
            self.send(*parts)
        except OSError:
            return False
        return True

    def data(self, number: int, data: bytes, *, is_over: bool = False) -> None:
        """Sends one DATA frame."""
        self.send(data_frame(number, data, is_over=is_over))

    def flood(self, pieces: Iterable[bytes], *, seconds: float = 20.0, reads: bool = True) -> int:
        """Sends until the other side hangs up, nothing is left or the time is over: bytes sent.

        Args:
            pieces: What to send.
            seconds: For all of it.
            reads: Whether it reads what comes meanwhile.
        """
        self.stream.settimeout(0)
        ends = time.monotonic() + seconds
        sent = 0
        try:
            for piece in pieces:
                while time.monotonic() < ends:
                    with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
                        sent += self.stream.send(piece)
                        break
                    if reads:
                        self._read()
                    select.select([], [self.stream], [], 0.01)
                if reads:
                    self._read()
                if self.is_closed or time.monotonic() >= ends:
                    break
        except OSError:
            self.is_closed = True
        finally:
            self.stream.settimeout(TIMEOUT_S)
        return sent

    def wait(self, holds: Callable[[], bool], seconds: float = TIMEOUT_S) -> bool:
        """Reads until it holds, the connection is over or the time is."""
        ends = time.monotonic() + seconds
        while not holds() and not self.is_closed and (left := ends - time.monotonic()) > 0:
            self.stream.settimeout(left)
            self._read()
        self.stream.settimeout(TIMEOUT_S)
        return holds()

    def answer(self, number: int, seconds: float = TIMEOUT_S) -> Stream:
        """Reads until a stream is done, or the connection is."""
        self.wait(lambda: self.streams[number].is_done, seconds)
        return self.streams[number]

    def is_alive(self) -> bool:
        """Whether a PING comes back."""
        sign = b"alive%03d" % len(self.pongs)
        return self.try_send(frames.PingFrame(0, sign)) and self.wait(lambda: sign in self.pongs)

    def _read(self) -> None:
        try:
            data = self.stream.recv(65_536)
        except (ssl.SSLWantReadError, TimeoutError):
            return
        except OSError:
            data = b""
        self.is_closed = not data
        self._ahead += data
        for frame in self._frames():
            self._take(frame)

    def _frames(self) -> Iterator[frames.Frame]:
        while len(self._ahead) >= 9:
            frame, length = frames.Frame.parse_frame_header(memoryview(bytes(self._ahead[:9])))
            if len(self._ahead) < 9 + length:
                return
            frame.parse_body(memoryview(bytes(self._ahead[9 : 9 + length])))
            del self._ahead[: 9 + length]
            yield frame

    def _take(self, frame: frames.Frame) -> None:
        if frame.stream_id:
            self._take_of_stream(frame, self.streams.setdefault(frame.stream_id, Stream()))
        elif isinstance(frame, frames.SettingsFrame):
            if "ACK" not in frame.flags:
                self.settings |= frame.settings
                self.try_send(frames.SettingsFrame(0, flags=["ACK"]))
        elif isinstance(frame, frames.PingFrame):
            if "ACK" in frame.flags:
                self.pongs.append(frame.opaque_data)
            else:
                self.try_send(frames.PingFrame(0, frame.opaque_data, flags=["ACK"]))
        elif isinstance(frame, frames.GoAwayFrame):
            self.goaway = frame.error_code

    def _take_of_stream(self, frame: frames.Frame, stream: Stream) -> None:
        if isinstance(frame, frames.RstStreamFrame):
            stream.reset = frame.error_code
        elif isinstance(frame, frames.DataFrame):
            stream.body += frame.data
            if self._is_reading and frame.flow_controlled_length:
                self.try_send(update(0, frame.flow_controlled_length))
                self.try_send(update(frame.stream_id, frame.flow_controlled_length))
            if "END_STREAM" in frame.flags:
                stream.end()
        elif isinstance(frame, frames.HeadersFrame | frames.ContinuationFrame):
            self._take_block(frame, stream)

    def _take_block(
        self, frame: frames.HeadersFrame | frames.ContinuationFrame, stream: Stream
    ) -> None:
        if self._block is None:
            self._block = (frame.stream_id, "END_STREAM" in frame.flags, bytearray())
        number, is_over, block = self._block
        assert number == frame.stream_id
        block += frame.data
        if "END_HEADERS" in frame.flags:
            self._block = None
            decoded = self._decoder.decode(bytes(block), raw=True)
            stream.headers([(bytes(name), bytes(value)) for name, value in decoded])
            if is_over:
                stream.end()


def block_of(fields: Fields) -> bytes:
    """A header block of exactly these, in this order; none enters the table."""
    encoder = hpack.Encoder()
    encoded: bytes = encoder.encode([hpack.NeverIndexedHeaderTuple(*field) for field in fields])
    return encoded


def data_frame(number: int, data: bytes, *, is_over: bool = False) -> frames.DataFrame:
    """A DATA frame."""
    return frames.DataFrame(number, data, flags=["END_STREAM"] if is_over else [])


def update(number: int, bytes_more: int) -> frames.WindowUpdateFrame:
    """A ``WINDOW_UPDATE`` frame."""
    return frames.WindowUpdateFrame(number, bytes_more)


def reset(number: int, code: int = CANCEL) -> frames.RstStreamFrame:
    """An ``RST_STREAM`` frame."""
    return frames.RstStreamFrame(number, code)


def get(key: str, path: bytes = b"/", *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The header list of a GET."""
    return [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", b"a"),
        (b":path", path),
        (b"api-key", key.encode()),
        *more,
    ]


def post(key: str, path: bytes = b"/", *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The header list of a POST."""
    return [(b":method", b"POST"), *get(key, path, *more)[1:]]


def _joined(parts: Iterable[bytes | frames.Frame]) -> bytes:
    return b"".join(part if isinstance(part, bytes) else part.serialize() for part in parts)
