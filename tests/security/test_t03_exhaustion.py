"""T-03: what one client sends, or does not read, costs bounded memory and nobody else's time.

Memory is that of the process, from the kernel; the time is that of another client which asks all
the while. Limits one by one are in ``rust/devplane/tests/engine/limits.rs``, bodies of gigabytes in
``tests/integration/test_streaming_memory.py``.
"""

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator

import pytest
from tests.support.application import wait_until
from tests.support.bystander import bystander
from tests.support.dev_process import DevProcess, dev_process
from tests.support.raw_client import RawClient
from tests.support.recording_process import RecordingProcess, Reply, ok, recording

MIB = 1 << 20
LIMITS = "[limits]\nhead_timeout = 3000\nbody_idle = 2000\n"


@pytest.fixture(scope="module")
def process() -> Iterator[RecordingProcess]:
    with recording() as running:
        yield running


@pytest.fixture
def plane(process: RecordingProcess, tmp_path: pathlib.Path) -> Iterator[DevProcess]:
    with dev_process(process.address, tmp_path, tables=LIMITS) as running:
        yield running


def test_heads_that_trickle_in_are_ended_and_delay_nobody(plane: DevProcess) -> None:
    count = 300
    with bystander(plane):
        slow = [plane.client() for _ in range(count)]
        before = plane.memory()
        # A byte now and then keeps an idle timer alive; the deadline of a head is for the whole.
        begun = time.monotonic()
        for step in range(5):
            for client in slow:
                client.try_send(b"GET /"[step : step + 1])
            time.sleep(0.4)
        rise = plane.memory() - before
        statuses = [client.answer().status for client in slow]
        took = time.monotonic() - begun
        assert statuses == [408] * count
        assert took < 8
        assert rise < count * 64 * 1024
        for client in slow:
            assert client.rest() == (b"", "closed")
            client.close()
    # A head that comes in two parts, in time, is a request like any other.
    with plane.client() as client:
        client.send(_get(plane, "/other")[:20])
        time.sleep(0.2)
        assert client.ask(_get(plane, "/other")[20:]).status == 200


def test_bodies_that_trickle_in_are_ended_and_delay_nobody(plane: DevProcess) -> None:
    count = 200
    who = f"Host: a\r\napi-key: {plane.key}\r\nContent-Type: image/png\r\n"
    with bystander(plane):
        slow = [plane.client() for _ in range(count)]
        for client in slow:
            client.send(f"POST /slow HTTP/1.1\r\n{who}Content-Length: 100\r\n\r\nabc".encode())
        begun = time.monotonic()
        assert [client.answer().status for client in slow] == [408] * count
        assert time.monotonic() - begun < 6
        for client in slow:
            client.close()
    wait_until(lambda: plane.metric("requests_open") == 0)
    with plane.client() as client:
        client.send(f"POST /other HTTP/1.1\r\n{who}Content-Length: 3\r\n\r\nab".encode())
        time.sleep(0.2)
        assert client.ask(b"c").status == 200


@pytest.mark.parametrize("line", [b"X: " + b"y" * 500 + b"\r\n", b"y" * 1000], ids=["many", "long"])
def test_a_head_without_an_end_costs_its_limit_and_no_more(plane: DevProcess, line: bytes) -> None:
    with bystander(plane), plane.client() as client:
        plane.forget_peak()
        before = plane.memory()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        sent = 0
        while sent < 64 * MIB and client.try_send(line * 16):
            sent += len(line) * 16
        rise = plane.memory("VmHWM") - before
        assert sent < 8 * MIB, "it was still being read"
        assert rise < 4 * MIB
        with contextlib.suppress(OSError):
            assert client.answer().status == 431
    with plane.client() as client:
        assert client.ask(_get(plane, "/other")).status == 200


def test_many_large_heads_cost_what_was_promised_each(plane: DevProcess) -> None:
    """Each may take its 64 KiB, twice over while the buffer grows, beside what TLS needs."""
    count, size = 200, 60_000
    with bystander(plane):
        bombs = [plane.client() for _ in range(count)]
        before = plane.memory()
        for client in bombs:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * size)
        time.sleep(0.5)
        each = (plane.memory() - before) / count
        assert each > size, "the figure would not show it"
        assert each < 160 * 1024, f"{each / 1024:.0f} KiB"
        for client in bombs:
            client.close()


def test_who_asks_and_does_not_read_waits(plane: DevProcess, process: RecordingProcess) -> None:
    """Pipelining without reading: answers are not gathered, the next request is not begun."""
    big = ok(b"z" * 100_000)
    process.script = lambda request: big if request.target == b"/big" else ok(b"")
    with bystander(plane), plane.client() as greedy:
        plane.forget_peak()
        before, begun = plane.memory(), len(process.received)
        greedy.stream.settimeout(1.0)
        asked = 0
        with contextlib.suppress(OSError):
            while asked < 5_000:
                greedy.stream.sendall(_get(plane, "/big"))
                asked += 1
        rise = plane.memory("VmHWM") - before
        forwarded = sum(r.target == b"/big" for r in process.received[begun:])
        assert 0 < forwarded < 300, forwarded
        assert rise < 4 * MIB
    wait_until(lambda: plane.metric("requests_open") == 0)


def test_a_length_that_is_never_filled_takes_no_memory(plane: DevProcess) -> None:
    count = 100
    who = f"Host: a\r\napi-key: {plane.key}\r\nContent-Type: application/json\r\n"
    with bystander(plane):
        liars = [plane.client() for _ in range(count)]
        before = plane.memory()
        for client in liars:
            client.send(f"POST / HTTP/1.1\r\n{who}Content-Length: 1048576\r\n\r\n[".encode())
        time.sleep(0.3)
        assert (plane.memory() - before) / count < 100 * 1024
        for client in liars:
            client.close()


def test_a_user_process_that_never_stops_is_not_gathered(tmp_path: pathlib.Path) -> None:
    """The other side of the same: its head has a limit, and its interim responses."""
    endless: dict[bytes, Callable[[], Reply]] = {
        b"/head": lambda: Reply(pieces=(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 2_000_000,)),
        b"/line": lambda: Reply(pieces=(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000_000,)),
        b"/interim": lambda: Reply(pieces=(b"HTTP/1.1 103 Hint\r\n\r\n" * 1_000_000,)),
    }
    with (
        recording(lambda request: endless.get(request.target, lambda: ok(b"x"))()) as process,
        dev_process(process.address, tmp_path, tables=LIMITS) as plane,
    ):
        for target in endless:
            plane.forget_peak()
            before = plane.memory()
            with plane.client() as client:
                client.send(_get(plane, target.decode()))
                assert _final(client) == 502, target
            assert plane.memory("VmHWM") - before < 4 * MIB, target
        with plane.client() as client:
            assert client.ask(_get(plane, "/other")).status == 200


def _final(client: RawClient) -> int:
    while (status := client.answer().status) < 200:
        pass
    return status


def _get(plane: DevProcess, target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: a\r\napi-key: {plane.key}\r\n\r\n".encode()
