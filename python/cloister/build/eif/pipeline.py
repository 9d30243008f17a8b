"""Moves blocks to several consumers at once: digests, checksum and file, each on its own thread.

Small blocks are joined to chunks, so that the threads meet seldom; hashing, checksums and writing
happen outside of the interpreter lock (hashlib and zlib release it for more than 2 047 bytes).
"""

import queue
import threading
from collections.abc import Callable, Iterable
from typing import Self

Consumer = Callable[[bytes | bytearray | memoryview], object]


class Pipeline:
    """Consumers of one stream, in its order.

    A context manager: leaving it waits for the consumers; an error of one of them is raised there,
    or at the next block.

    Args:
        consumers: Each is called with every chunk, on a thread of its own.
    """

    def __init__(self, consumers: Iterable[Consumer]) -> None:
        self._failed: list[BaseException] = []
        self._lanes = [_Lane(consumer, self._failed) for consumer in consumers]
        self._chunk = bytearray()

    def put(self, block: bytes | bytearray | memoryview) -> None:
        """Adds a block; waits while the consumers are behind.

        Raises:
            BaseException: What a consumer raised.
        """
        if len(block) < CHUNK_BYTES:
            self._chunk += block
            if len(self._chunk) >= CHUNK_BYTES:
                self._flush()
        else:
            self._flush()
            self._send(block)

    def __enter__(self) -> Self:
        for lane in self._lanes:
            lane.start()
        return self

    def __exit__(self, kind: object, problem: object, trace: object) -> None:
        if kind is None:
            self._flush()
        for lane in self._lanes:
            lane.stop(at_once=kind is not None)
        if kind is None and self._failed:
            raise self._failed[0]

    def _flush(self) -> None:
        if self._chunk:
            chunk, self._chunk = self._chunk, bytearray()
            self._send(chunk)

    def _send(self, block: bytes | bytearray | memoryview) -> None:
        if self._failed:
            raise self._failed[0]
        for lane in self._lanes:
            lane.queue.put(block)


class _Lane:
    def __init__(self, consumer: Consumer, failed: list[BaseException]) -> None:
        self.queue: queue.Queue[bytes | bytearray | memoryview | None] = queue.Queue(DEPTH)
        self._consumer = consumer
        self._failed = failed
        self._is_ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, at_once: bool) -> None:
        self._is_ended = at_once
        self.queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        # A lane that failed goes on emptying its queue: the producer must never wait for ever.
        while (block := self.queue.get()) is not None:
            if self._is_ended or self._failed:
                continue
            try:
                self._consumer(block)
            except BaseException as problem:  # noqa: BLE001 - raised again by the producer
                self._failed.append(problem)


CHUNK_BYTES = 1 << 20
DEPTH = 4
"""Chunks that wait in front of a consumer: what is held in memory is bounded by it."""
