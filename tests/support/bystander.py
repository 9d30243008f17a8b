"""A client that has nothing to do with an attack, and its latency meanwhile."""

import contextlib
import threading
import time
from collections.abc import Iterator

from tests.support.application import wait_until
from tests.support.dev_process import DevProcess

LATENCY_S = 1.0


@contextlib.contextmanager
def bystander(plane: DevProcess) -> Iterator[list[float]]:
    """Another client that asks every few milliseconds; seconds that each answer took."""
    took: list[float] = []
    ended = threading.Event()
    client = plane.client()
    request = f"GET /bystander HTTP/1.1\r\nHost: a\r\napi-key: {plane.key}\r\n\r\n".encode()

    def ask() -> None:
        while not ended.wait(0.02):
            begun = time.monotonic()
            assert client.ask(request).status == 200
            took.append(time.monotonic() - begun)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield took
        wait_until(lambda: len(took) > 10)
    finally:
        ended.set()
        thread.join()
        client.close()
    assert max(took) < LATENCY_S, f"{max(took):.2f} s"
