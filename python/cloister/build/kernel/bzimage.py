"""The head of a Linux kernel for x86: what it says about itself, without believing a number in it.

It is the setup header of the kernel's ``Documentation/arch/x86/boot.rst``, little-endian. Nothing
is read beyond the file, and nothing is allocated from a size that the file names. Whether the
kernel boots is not decided here.
"""

import dataclasses
import re
import struct
from typing import NoReturn, Self

from cloister.errors import MalformedImage


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BzImage:
    """What a kernel says about itself.

    Args:
        version: Its release, the first word of its version text: ``6.12.117-enclave``.
        banner: The whole version text.
        protocol: Version of the boot protocol: ``0x20f`` is 2.15.
        max_cmdline: Longest command line it takes, in bytes.
        memory: What it needs to unpack itself and start, in bytes; 0: it does not say.
    """

    version: str
    banner: str
    protocol: int
    max_cmdline: int
    memory: int

    @classmethod
    def parse(cls, file: bytes | memoryview, name: str = "kernel") -> Self:
        """Reads the head of a kernel.

        Args:
            file: The whole file.
            name: What it is called in messages.

        Raises:
            MalformedImage: In the order: too long, too short for a header, no boot flag, no
                ``HdrS``, an old protocol, not a bzImage, cut short, no version text, a version
                text that lies outside of the setup code, has no end, or is not printable.
        """
        if len(file) > MAX_BYTES:
            _fail(name, f"{len(file)} bytes, the limit is {MAX_BYTES}")
        if len(file) < _HEADER_END:
            _fail(name, f"{len(file)} bytes, expected a setup header up to byte {_HEADER_END}")
        (flag,) = struct.unpack_from("<H", file, _BOOT_FLAG)
        if flag != BOOT_FLAG:
            _fail(name, f"the boot flag is {flag:#06x}, expected {BOOT_FLAG:#06x}")
        if bytes(file[_MAGIC : _MAGIC + 4]) != MAGIC:
            _fail(name, "there is no `HdrS` in it")
        protocol, pointer = struct.unpack_from("<H6xH", file, _PROTOCOL)
        if protocol < OLDEST_PROTOCOL:
            _fail(name, f"boot protocol {protocol:#06x}, expected {OLDEST_PROTOCOL:#06x} or later")
        if not file[_LOAD_FLAGS] & LOADED_HIGH:
            _fail(name, "it is a zImage: expected one that is loaded high")
        setup = (1 + (file[_SETUP_SECTORS] or DEFAULT_SECTORS)) * SECTOR
        (paragraphs,) = struct.unpack_from("<I", file, _SYSTEM_SIZE)
        needed = setup + PARAGRAPH * paragraphs
        if len(file) < needed:
            _fail(name, f"{len(file)} bytes, its header says {needed}: it is cut short")
        banner = _banner(file, pointer, setup, name)
        (max_cmdline,) = struct.unpack_from("<I", file, _CMDLINE_SIZE)
        (memory,) = struct.unpack_from("<I", file, _INIT_SIZE)
        return cls(
            version=banner.split(" ", 1)[0],
            banner=banner,
            protocol=protocol,
            max_cmdline=max_cmdline,
            memory=memory,
        )


def _banner(file: bytes | memoryview, pointer: int, setup: int, name: str) -> str:
    """The version text: ``pointer`` is where it starts, less 0x200; it lies in the setup code."""
    if pointer == 0:
        _fail(name, "it does not say its version")
    start = SECTOR + pointer
    if start >= setup:
        _fail(name, f"its version is said to be at {start}, its setup code ends at {setup}")
    raw, end, _ = bytes(file[start : min(setup, start + MAX_BANNER + 1)]).partition(b"\0")
    if not end:
        _fail(name, f"its version text has no end within {MAX_BANNER} bytes of setup code")
    if not re.fullmatch(rb"[!-~][ -~]*", raw):
        _fail(name, "its version text is not printable ASCII")
    return raw.decode("ascii")


def _fail(name: str, problem: str) -> NoReturn:
    raise MalformedImage(
        f"`{name}` is not a kernel for x86_64: {problem}",
        hint="a bzImage is expected, as `make bzImage` or a distribution's vmlinuz",
    )


MAGIC = b"HdrS"
BOOT_FLAG = 0xAA55
LOADED_HIGH = 1
OLDEST_PROTOCOL = 0x20A
"""2.10 (Linux 2.6.31), the first that has every field read here."""
SECTOR = 512
DEFAULT_SECTORS = 4
"""What 0 sectors of setup code mean (boot.rst, ``setup_sects``)."""
PARAGRAPH = 16
MAX_BYTES = 256 << 20
MAX_BANNER = 255
# Where fields are, in bytes (boot.rst, "The Real-Mode Kernel Header").
_SETUP_SECTORS = 0x1F1
_SYSTEM_SIZE = 0x1F4
_BOOT_FLAG = 0x1FE
_MAGIC = 0x202
_PROTOCOL = 0x206
_LOAD_FLAGS = 0x211
_CMDLINE_SIZE = 0x238
_INIT_SIZE = 0x260
_HEADER_END = 0x264
