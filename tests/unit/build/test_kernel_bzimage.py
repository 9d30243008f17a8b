"""The head of a kernel: what is read of a good one, and what of a hostile one is refused."""

import struct

import pytest
from tests.support import kernels

from cloister.build.kernel import bzimage
from cloister.build.kernel.bzimage import BzImage
from cloister.errors import MalformedImage

GOOD = kernels.bzimage()


def patched(at: int, data: bytes) -> bytes:
    return GOOD[:at] + data + GOOD[at + len(data) :]


def test_a_kernel_says_its_version_and_bounds() -> None:
    head = BzImage.parse(GOOD)
    assert head == BzImage(
        version=kernels.VERSION,
        banner=kernels.BANNER,
        protocol=0x20F,
        max_cmdline=2047,
        memory=1 << 24,
    )
    assert BzImage.parse(memoryview(GOOD)) == head
    # A signature behind it, as a distribution's has, is no part of it.
    assert BzImage.parse(GOOD + b"signature") == head


def test_no_setup_sectors_mean_four() -> None:
    longer = GOOD[: kernels.SETUP_BYTES] + bytes(1024) + GOOD[kernels.SETUP_BYTES :]
    assert BzImage.parse(longer[:0x1F1] + b"\0" + longer[0x1F2:]).version == kernels.VERSION


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (b"", "0 bytes, expected a setup header"),
        (GOOD[: bzimage._HEADER_END - 1], "expected a setup header"),
        (GOOD[:-1], "cut short"),
        (GOOD[: kernels.SETUP_BYTES], "cut short"),
        (patched(0x1F4, b"\xff\xff\xff\xff"), "its header says 68719478256: it is cut short"),
        (patched(0x1F1, b"\xff"), "cut short"),
        (patched(0x1FE, b"\x55\x55"), "boot flag"),
        (patched(0x202, b"HdrT"), "no `HdrS`"),
        (patched(0x206, b"\x09\x02"), "boot protocol 0x0209"),
        (patched(0x211, b"\0"), "a zImage"),
        (patched(0x20E, b"\0\0"), "does not say its version"),
        (patched(0x20E, b"\xff\xff"), "its setup code ends at 1536"),
        (patched(0x20E, struct.pack("<H", kernels.SETUP_BYTES - 0x200)), "its setup code ends"),
        (patched(kernels.BANNER_AT, b"x" * (kernels.SETUP_BYTES - kernels.BANNER_AT)), "no end"),
        (patched(kernels.BANNER_AT, b"x" * 256 + b"\0"), "no end within 255"),
        (patched(kernels.BANNER_AT, b"\0"), "not printable"),
        (patched(kernels.BANNER_AT, b" 6.12"), "not printable"),
        (patched(kernels.BANNER_AT, b"6.12\x1b[2J"), "not printable"),
        (patched(kernels.BANNER_AT, b"6.12\n"), "not printable"),
    ],
)
def test_a_hostile_head_is_refused(file: bytes, problem: str) -> None:
    with pytest.raises(MalformedImage, match="is not a kernel for x86_64") as refused:
        BzImage.parse(file, "vmlinuz")
    assert problem in refused.value.message
    assert refused.value.message.isprintable()


def test_every_length_is_refused_or_read() -> None:
    """Nothing but the error, whatever the file ends in."""
    for length in range(len(GOOD)):
        with pytest.raises(MalformedImage):
            BzImage.parse(GOOD[:length])
    BzImage.parse(GOOD)


def test_every_changed_byte_of_the_head_is_refused_or_read() -> None:
    for at in range(0x1F0, bzimage._HEADER_END):
        for value in (0, 0x7F, 0x80, 0xFF):
            try:
                head = BzImage.parse(patched(at, bytes([value])))
            except MalformedImage:
                continue
            assert head.version.isprintable()


def test_a_version_that_ends_with_the_setup_code_is_read() -> None:
    text = b"6.1"
    at = kernels.SETUP_BYTES - len(text) - 1
    file = patched(0x20E, struct.pack("<H", at - 0x200))
    file = file[:at] + text + b"\0" + file[kernels.SETUP_BYTES :]
    assert BzImage.parse(file).version == "6.1"
    with pytest.raises(MalformedImage, match="no end"):
        BzImage.parse(file[: kernels.SETUP_BYTES - 1] + b"!" + file[kernels.SETUP_BYTES :])
