"""Memory of a guest and the rings in it, as a vhost-user backend sees them.

Split rings alone, without indirect descriptors (VIRTIO 1.2, section 2.7). For tests: a guest that
lies ends the backend with an exception.
"""

import dataclasses
import mmap
import os
import struct


@dataclasses.dataclass(frozen=True, slots=True)
class Region:
    """A part of the memory: where the guest has it, where QEMU has it, and the bytes."""

    guest: int
    size: int
    user: int
    offset: int
    mapped: mmap.mmap


class GuestMemory:
    """All parts that QEMU shares."""

    def __init__(self) -> None:
        self._regions: list[Region] = []

    def share(self, table: bytes, descriptors: list[int]) -> None:
        """Takes over what SET_MEM_TABLE says."""
        (count,) = struct.unpack_from("<I", table)
        self._regions = []
        for index in range(count):
            guest, size, user, offset = struct.unpack_from("<QQQQ", table, 8 + 32 * index)
            mapped = mmap.mmap(descriptors[index], size + offset)
            self._regions.append(Region(guest, size, user, offset, mapped))

    def of_guest(self, address: int, size: int) -> memoryview:
        """Bytes at an address of the guest."""
        return self._part(address, size, is_user=False)

    def of_user(self, address: int, size: int) -> memoryview:
        """Bytes at an address of QEMU."""
        return self._part(address, size, is_user=True)

    def _part(self, address: int, size: int, *, is_user: bool) -> memoryview:
        for region in self._regions:
            start = region.user if is_user else region.guest
            if start <= address and address + size <= start + region.size:
                at = address - start + region.offset
                return memoryview(region.mapped)[at : at + size]
        raise ValueError(f"{address:#x} is not shared")


class Ring:
    """One ring: chains that the guest offers, and those that it gets back."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self.size = 0
        self.next = 0
        self.kick: int | None = None
        self.call: int | None = None
        self._places: tuple[int, int, int] | None = None

    def place(self, descriptors: int, used: int, available: int) -> None:
        """Says where its three parts are, as addresses of QEMU."""
        self._places = (descriptors, used, available)

    def take(self) -> tuple[int, list[tuple[memoryview, bool]]] | None:
        """The next chain: its head, and its buffers, each with whether we may write to it."""
        if self._places is None or self.kick is None or not self.size:
            return None
        descriptors, _, available = self._places
        ring = self._memory.of_user(available, 4 + 2 * self.size)
        (end,) = struct.unpack_from("<H", ring, 2)
        if end == self.next:
            return None
        (head,) = struct.unpack_from("<H", ring, 4 + 2 * (self.next % self.size))
        self.next = (self.next + 1) & 0xFFFF
        table = self._memory.of_user(descriptors, 16 * self.size)
        buffers = []
        index: int | None = head
        while index is not None:
            address, length, flags, following = struct.unpack_from("<QIHH", table, 16 * index)
            assert not flags & INDIRECT
            buffers.append((self._memory.of_guest(address, length), bool(flags & WRITABLE)))
            index = following if flags & NEXT else None
        return head, buffers

    def give_back(self, head: int, written: int) -> None:
        """Gives a chain back, and wakes the guest."""
        assert self._places is not None
        ring = self._memory.of_user(self._places[1], 4 + 8 * self.size)
        (index,) = struct.unpack_from("<H", ring, 2)
        struct.pack_into("<II", ring, 4 + 8 * (index % self.size), head, written)
        struct.pack_into("<H", ring, 2, (index + 1) & 0xFFFF)
        if self.call is not None:
            os.write(self.call, struct.pack("<Q", 1))


NEXT, WRITABLE, INDIRECT = 1, 2, 4
