"""What large bodies, slow sides and idle connections cost the data plane in memory.

The data plane, the client and the user process are three programs; the figures are of the first
alone, from the kernel (``VmRSS`` before, ``VmHWM`` after), and are printed.
"""

import contextlib
import json
import pathlib
import resource
import time
from collections.abc import Callable, Iterator

import pytest
from tests.support.application import wait_until
from tests.support.bulk import (
    BLOCKS,
    FILLER_BYTES,
    BulkProcess,
    block,
    body_of,
    bulk_process,
    clear_blocks,
    clear_values,
)
from tests.support.dev_process import DevProcess, dev_process
from tests.support.idle_clients import idle_clients

from cloister import crypto

MIB = 1 << 20
GIB = 1 << 30
PROMISED_RISE = 16 * MIB
# Two sockets of the kernel each way, at most tcp_wmem (4 MiB) and tcp_rmem (6 MiB) large, and ours.
IN_FLIGHT = 24 * MIB
PROMISED_IDLE = 40 * 1024
LIMITS = "[limits]\nbody_idle = 60000\nkeepalive_idle = 600000\nupstream_response = 60000\n"


@pytest.fixture(scope="module")
def process() -> Iterator[BulkProcess]:
    with bulk_process() as running:
        yield running


@pytest.fixture
def plane(process: BulkProcess, tmp_path: pathlib.Path) -> Iterator[DevProcess]:
    """A new one for each figure: memory of the last test must not hide what this one takes."""
    with dev_process(process.address, tmp_path, tables=LIMITS) as running:
        yield running


def test_an_upload_with_encrypted_fields_raises_memory_little(
    plane: DevProcess, record: Callable[[str], None]
) -> None:
    size = 4 * GIB
    count = size // FILLER_BYTES
    sealed = _sealed_blocks(plane)
    with plane.client() as client:
        before = _settled(plane)
        begun = time.monotonic()
        client.send(_request(plane, f"POST /upload/{count}", "Transfer-Encoding: chunked"))
        for piece in body_of(sealed, count):
            client.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
        answer = client.ask(b"0\r\n\r\n")
        took = time.monotonic() - begun
    rise = plane.memory("VmHWM") - before
    record(f"{_gib(size)} up, {2 * count} fields opened: RSS rose by {_mib(rise)}, {took:.1f} s")
    result = json.loads(answer.body)
    expected = sum(len(piece) for piece in body_of(clear_blocks(), count))
    assert result == {"received": expected, "equal": expected, "whole": True}
    wait_until(lambda: plane.metric("fields_opened_total") == 2 * count)
    assert rise < PROMISED_RISE


@pytest.mark.parametrize(("kind", "size"), [("download", 4 * GIB), ("chunked", GIB)])
def test_a_download_raises_memory_little(
    plane: DevProcess, size: int, kind: str, record: Callable[[str], None]
) -> None:
    count = size // FILLER_BYTES
    with plane.client() as client:
        before = _settled(plane)
        begun = time.monotonic()
        client.send(_request(plane, f"GET /{kind}/{count}"))
        received = 0
        room = memoryview(bytearray(MIB))
        expected = sum(len(piece) for piece in body_of(clear_blocks(), count))
        while received < expected:
            got = client.stream.recv_into(room)
            assert got
            received += got
        took = time.monotonic() - begun
    rise = plane.memory("VmHWM") - before
    record(f"{_gib(size)} down ({kind}): RSS rose by {_mib(rise)}, {took:.1f} s")
    assert rise < PROMISED_RISE


def test_the_figure_shows_a_body_that_is_held(
    process: BulkProcess, tmp_path: pathlib.Path, record: Callable[[str], None]
) -> None:
    """The twin of the others: memory that is taken for a moment is seen; theirs mean something.

    What is held is there twice while it is opened, and while it is sent; never three times.
    """
    limits = f"{LIMITS}decrypt_buffer = {64 * MIB}\n"
    with dev_process(process.address, tmp_path, tables=limits) as plane, plane.client() as client:
        before = _settled(plane)
        client.send(_request(plane, "POST /", f"Content-Length: {48 * MIB}"))
        client.send(b" " * 48 * MIB)
        client.answer()
        rise = plane.memory("VmHWM") - before
    record(f"48 MiB that are held: RSS rose by {_mib(rise)}")
    assert 40 * MIB < rise < 2.3 * 48 * MIB


def test_a_client_that_does_not_read_holds_the_user_process_back(
    plane: DevProcess, process: BulkProcess, record: Callable[[str], None]
) -> None:
    with plane.client() as client:
        before = _settled(plane)
        client.send(_request(plane, "GET /flood/1024"))
        written = _standstill(process.progress)
        rise = plane.memory("VmHWM") - before
        record(f"to a client that does not read: {_mib(written)} in flight, RSS rose {_mib(rise)}")
        assert 0 < written < IN_FLIGHT
        assert rise < PROMISED_RISE
        # It is back-pressure and not an end: what is read makes room for more.
        room = bytearray(MIB)
        received = 0
        while received < 64 * MIB:
            received += client.stream.recv_into(room)
        assert process.progress() > 40 * MIB


def test_a_user_process_that_does_not_read_holds_the_client_back(
    plane: DevProcess, record: Callable[[str], None]
) -> None:
    with plane.client() as client:
        before = _settled(plane)
        client.send(_request(plane, "POST /deaf", f"Content-Length: {GIB}"))
        client.stream.settimeout(2)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < GIB:
                client.stream.sendall(bytes(1 << 16))
                sent += 1 << 16
        rise = plane.memory("VmHWM") - before
    record(f"to a user process that does not read: {_mib(sent)} in flight, RSS rose {_mib(rise)}")
    assert 0 < sent < IN_FLIGHT
    assert rise < PROMISED_RISE


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(8_000, id="8000"),
        pytest.param(10_000, id="10000", marks=[pytest.mark.conformance]),
    ],
)
def test_an_idle_connection_costs_little(
    process: BulkProcess, tmp_path: pathlib.Path, count: int, record: Callable[[str], None]
) -> None:
    # The data plane keeps half of its descriptors for the user process.
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2 * count + 256:
        pytest.skip(f"{count} connections take a descriptor limit of {2 * count + 256}")
    with dev_process(process.address, tmp_path, tables=LIMITS) as plane:
        with plane.client() as client:
            client.ask(_request(plane, "GET /"))
        before = _settled(plane)
        begun = time.monotonic()
        with idle_clients(plane.address, plane.ca_file, plane.key, count):
            took = time.monotonic() - begun
            wait_until(lambda: plane.metric("connections_open") >= count)
            # Half a second after a request a connection gives its buffer back.
            time.sleep(1.5)
            each = (plane.memory() - before) / count
            peak = (plane.memory("VmHWM") - before) / count
            record(
                f"{count} idle connections: {each / 1024:.1f} KiB each, {peak / 1024:.1f} KiB at "
                f"most while they came ({took:.0f} s)"
            )
            with plane.client() as client:
                assert client.ask(_request(plane, "GET /")).status == 200
        assert each < PROMISED_IDLE


def test_an_idle_connection_gives_back_what_its_requests_took(
    process: BulkProcess, tmp_path: pathlib.Path, record: Callable[[str], None]
) -> None:
    """The second thousand shows it: what the first leaves in the allocator is there but once."""
    count, size = 1_000, 256 * 1024
    with dev_process(process.address, tmp_path, tables=LIMITS) as plane:

        def thousand() -> contextlib.AbstractContextManager[None]:
            return idle_clients(plane.address, plane.ca_file, plane.key, count, size)

        before = _settled(plane)
        with thousand():
            time.sleep(1.5)
            first = plane.memory()
            with thousand():
                time.sleep(1.5)
                each = (plane.memory() - first) / count
        record(
            f"idle after a body of {size >> 10} KiB each: {_mib(first - before)} for the first "
            f"{count}, {each / 1024:.1f} KiB for each of the next"
        )
        assert each < PROMISED_IDLE


def _sealed_blocks(plane: DevProcess) -> list[bytes]:
    sealed = []
    for number in range(BLOCKS):
        text, figure = (
            json.dumps(crypto.encrypt(value, plane.app_public_key))
            for value in clear_values(number)
        )
        sealed.append(block(number, text, figure))
    return sealed


def _request(plane: DevProcess, line: str, *headers: str) -> bytes:
    lines = [f"{line} HTTP/1.1", "Host: a", f"api-key: {plane.key}", *headers]
    return ("\r\n".join([*lines, "Content-Type: application/json"]) + "\r\n\r\n").encode()


def _settled(plane: DevProcess) -> int:
    """What it uses now, with the highest so far forgotten."""
    plane.forget_peak()
    return plane.memory()


def _standstill(progress: Callable[[], int]) -> int:
    """The value at which it stays for a second."""
    seen = -1
    while (value := progress()) != seen or not value:
        seen = value
        time.sleep(1)
    return value


def _mib(size: int) -> str:
    return f"{size / MIB:.1f} MiB"


def _gib(size: int) -> str:
    return f"{size >> 30} GiB"
