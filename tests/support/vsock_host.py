"""The host of a QEMU guest, on vsock, for one purpose: what a guest says to a port is said back.

A vhost-user backend for the device ``vhost-user-vsock-device`` (QEMU, docs/interop/vhost-user.rst;
VIRTIO 1.2, section 5.10). No /dev/vhost-vsock, no AF_VSOCK on this machine. It keeps what was said,
by port; ports that are not expected are refused with a reset.
"""

import array
import collections
import contextlib
import os
import pathlib
import selectors
import socket
import struct
import threading
from collections.abc import Iterator

from tests.support.guest_memory import GuestMemory, Ring


class VsockHost:
    """A backend on its own thread, until the guest goes or it is closed.

    Args:
        path: Socket that QEMU connects to.
        echoed: Ports whose bytes are said back.
        guest_cid: Address of the guest.
    """

    def __init__(self, path: pathlib.Path, *, echoed: set[int], guest_cid: int = 4) -> None:
        self.said: dict[int, bytes] = collections.defaultdict(bytes)
        self.problem: BaseException | None = None
        self._echoed = echoed
        self._cid = guest_cid
        self._memory = GuestMemory()
        self._rings = [Ring(self._memory) for _ in range(QUEUES)]
        self._to_guest: collections.deque[bytes] = collections.deque()
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._stopped, self._stop = os.pipe()
        self._selector.register(self._stopped, selectors.EVENT_READ, None)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def options(self, path: pathlib.Path, memory_mib: int) -> tuple[str, ...]:
        """Options of QEMU that bring the device; the memory has to be shared."""
        return (
            *("-object", f"memory-backend-memfd,id=memory,size={memory_mib}M,share=on"),
            *("-machine", "memory-backend=memory"),
            *("-chardev", f"socket,id=vsock,path={path}"),
            *("-device", "vhost-user-vsock-device,chardev=vsock"),
        )

    def close(self) -> None:
        """Ends it; a problem of its thread is raised here."""
        os.write(self._stop, b"x")
        self._thread.join(10)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        descriptors = {self._stop, self._stopped}
        descriptors |= {end for ring in self._rings for end in (ring.kick, ring.call) if end}
        for descriptor in descriptors:
            os.close(descriptor)
        if self.problem is not None:
            raise self.problem

    def _run(self) -> None:
        try:
            while True:
                for key, _ in self._selector.select():
                    if key.data is None:
                        return
                    key.data()
                self._from_guest()
                self._deliver()
        except EOFError:
            return
        except BaseException as problem:  # noqa: BLE001 - raised again by close
            self.problem = problem

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._message(connection))

    def _message(self, connection: socket.socket) -> None:
        head, descriptors = _received(connection, HEAD.size)
        request, flags, size = HEAD.unpack(head)
        body, more = _received(connection, size) if size else (b"", [])
        answer = self._obeyed(request, body, descriptors + more)
        if answer is None and flags & NEED_REPLY:
            answer = struct.pack("<Q", 0)
        if answer is not None:
            connection.sendall(HEAD.pack(request, VERSION | REPLY, len(answer)) + answer)

    def _obeyed(self, request: int, body: bytes, descriptors: list[int]) -> bytes | None:
        """Does what QEMU says; the answer, where the request has one."""
        if request == SET_MEM_TABLE:
            self._memory.share(body, descriptors)
        elif request in (SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR):
            self._event(request, struct.unpack_from("<Q", body)[0] & 0xFF, descriptors)
            return None
        elif request in SAID:
            return struct.pack("<Q", SAID[request])
        elif request == GET_CONFIG:
            offset, size, flags = struct.unpack_from("<III", body)
            space = struct.pack("<Q", self._cid)[offset : offset + size].ljust(size, b"\0")
            return struct.pack("<III", offset, size, flags) + space
        elif request in RING_STATES:
            return self._ring_state(request, *struct.unpack_from("<II", body))
        elif request == SET_VRING_ADDR:
            index, _, table, used, available = struct.unpack_from("<IIQQQ", body)
            self._rings[index].place(table, used, available)
        for descriptor in descriptors:
            os.close(descriptor)
        return None

    def _ring_state(self, request: int, index: int, number: int) -> bytes | None:
        ring = self._rings[index]
        if request == SET_VRING_NUM:
            ring.size = number
        elif request == SET_VRING_BASE:
            ring.next = number
        elif request == GET_VRING_BASE:
            return struct.pack("<II", index, ring.next)
        return None

    def _event(self, request: int, index: int, descriptors: list[int]) -> None:
        ring = self._rings[index]
        descriptor = descriptors[0] if descriptors else None
        if request == SET_VRING_CALL:
            ring.call = descriptor
        elif request == SET_VRING_KICK and descriptor is not None:
            ring.kick = descriptor
            self._selector.register(descriptor, selectors.EVENT_READ, lambda: _emptied(descriptor))

    def _from_guest(self) -> None:
        while (chain := self._rings[FROM_GUEST].take()) is not None:
            head, buffers = chain
            whole = b"".join(bytes(part) for part, is_ours in buffers if not is_ours)
            self._packet(PACKET.unpack_from(whole), whole[PACKET.size :])
            self._rings[FROM_GUEST].give_back(head, 0)

    def _packet(self, head: tuple[int, ...], data: bytes) -> None:
        source, target, source_port, port, length, kind, operation, *_ = head

        def answer(operation: int, text: bytes = b"", received: int = 0) -> None:
            self._to_guest.append(
                PACKET.pack(
                    *(target, source, port, source_port, len(text), kind, operation, 0),
                    *(BUFFER_BYTES, received),
                )
                + text
            )

        if port not in self._echoed or operation in (SHUTDOWN, RESET):
            if operation != RESET:
                answer(RESET)
        elif operation == REQUEST:
            answer(RESPONSE)
        elif operation == DATA:
            self.said[port] += data[:length]
            answer(DATA, data[:length], len(self.said[port]))

    def _deliver(self) -> None:
        while self._to_guest and (chain := self._rings[TO_GUEST].take()) is not None:
            head, buffers = chain
            packet = self._to_guest.popleft()
            written = 0
            for part, is_ours in buffers:
                if is_ours:
                    piece = packet[written : written + len(part)]
                    part[: len(piece)] = piece
                    written += len(piece)
            assert written == len(packet)
            self._rings[TO_GUEST].give_back(head, written)


@contextlib.contextmanager
def answering(path: pathlib.Path, *, echoed: set[int]) -> Iterator[VsockHost]:
    """A host for the length of a block."""
    host = VsockHost(path, echoed=echoed)
    try:
        yield host
    finally:
        host.close()


def _received(connection: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Exactly so many bytes, and the descriptors that came with them."""
    data, descriptors = b"", array.array("i")
    while len(data) < size:
        part, extra, *_ = connection.recvmsg(size - len(data), socket.CMSG_SPACE(8 * 4))
        if not part:
            raise EOFError
        data += part
        for _, kind, content in extra:
            if kind == socket.SCM_RIGHTS:
                descriptors.frombytes(content[: len(content) // 4 * 4])
    return data, list(descriptors)


def _emptied(descriptor: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(descriptor, 8)


HEAD = struct.Struct("<III")
VERSION, REPLY, NEED_REPLY = 1, 4, 8
SET_MEM_TABLE = 5
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE = 8, 9, 10, 11
SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR = 12, 13, 14
SET_VRING_ENABLE, GET_CONFIG = 18, 24
RING_STATES = (SET_VRING_NUM, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_ENABLE)
QUEUES = 3
TO_GUEST, FROM_GUEST = 0, 1
SAID = {
    1: 1 << 32 | 1 << 30,  # features: version 1 of virtio, protocol features
    15: 1 << 0 | 1 << 3 | 1 << 9,  # protocol features: several queues, replies, configuration
    17: QUEUES,
}
PACKET = struct.Struct("<QQIIIHHIII")
"""Both addresses, both ports, length, kind, operation, flags, room, bytes received (5.10.6)."""
REQUEST, RESPONSE, RESET, SHUTDOWN, DATA = 1, 2, 3, 4, 5
BUFFER_BYTES = 1 << 18
