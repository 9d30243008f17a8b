"""T-13: the host substitutes or changes the EIF. The change is refused, or seen in the registers.

What clients do with other registers is in ``test_t13_substituted_image.py``.
"""

import pathlib
import struct

import pytest
from tests.support.eif_images import image, pair, with_checksum

from cloister.build import measure
from cloister.build.eif import Kind
from cloister.build.eif.layout import HEADER_BYTES
from cloister.build.eif.read import parse
from cloister.errors import MalformedImage

PAIR = pair()
RAMDISKS = [b"boot ramdisk", b"application ramdisk"]
UNMEASURED = {7, *range(8, 24)}
"""The architecture bit, default memory and default CPUs: the host decides these anyway."""


def outcome(file: bytes) -> dict[int, bytes] | None:
    """The registers, or ``None``: refused."""
    try:
        return measure(parse(file)).registers()
    except MalformedImage:
        return None


@pytest.mark.parametrize("signing", [None, PAIR], ids=["unsigned", "signed"])
def test_every_flipped_byte_is_refused(signing: object) -> None:
    file, pcrs = image(RAMDISKS, cmdline=b"quiet", signing=signing)  # type: ignore[arg-type]
    assert outcome(file) == pcrs.registers()
    for at in range(len(file)):
        broken = bytearray(file)
        broken[at] ^= 0x01
        assert outcome(bytes(broken)) is None, f"byte {at}"


@pytest.mark.parametrize("bit", [0, 3, 7])
def test_with_the_checksum_put_right_it_is_refused_or_measured(bit: int) -> None:
    """A hostile host can compute a checksum; it cannot keep the registers."""
    file, pcrs = image(RAMDISKS, cmdline=b"quiet")
    sections = parse(file).sections
    about = next(section for section in sections if section.kind is Kind.METADATA)
    metadata = range(about.offset + 12, about.offset + 12 + about.size)
    seen = set()
    for at in range(len(file)):
        broken = bytearray(file)
        broken[at] ^= 1 << bit
        found = outcome(with_checksum(bytes(broken)))
        if found == pcrs.registers():
            seen.add(at)
    # The checksum's own bytes are put right again.
    assert seen <= UNMEASURED | set(metadata) | set(range(HEADER_BYTES - 4, HEADER_BYTES))
    assert set(metadata) <= seen


def test_a_signed_image_that_changed_is_refused_whatever_its_checksum() -> None:
    file, _ = image(RAMDISKS, signing=PAIR)
    for section in parse(file).ramdisks:
        broken = bytearray(file)
        broken[section.offset + 12] ^= 1
        assert outcome(with_checksum(bytes(broken))) is None
    assert outcome(with_checksum(file)) is not None


def test_another_image_has_other_registers() -> None:
    _, genuine = image(RAMDISKS, signing=PAIR)
    _, boot = image([b"other boot", RAMDISKS[1]], signing=PAIR)
    _, application = image([RAMDISKS[0], b"other application"], signing=PAIR)
    assert boot.pcr0 != genuine.pcr0 != application.pcr0
    assert boot.pcr1 != genuine.pcr1 == application.pcr1
    assert application.pcr2 != genuine.pcr2 == boot.pcr2
    assert boot.pcr8 == genuine.pcr8


def test_moving_bytes_between_ramdisks_is_seen() -> None:
    """PCR0 is over their bytes one after the other, so it alone does not tell: PCR1 and PCR2 do."""
    _, one = image([b"ab", b"c"])
    _, two = image([b"a", b"bc"])
    assert one.pcr0 == two.pcr0
    assert one.pcr1 != two.pcr1
    assert one.pcr2 != two.pcr2


def test_a_stripped_signature_leaves_no_pcr8(tmp_path: pathlib.Path) -> None:
    """Without the section, nothing in the image says that it was ever signed."""
    signed, pcrs = image(RAMDISKS, signing=PAIR)
    section = parse(signed).signature
    assert section is not None
    stripped = bytearray(signed[: section.offset])
    count = struct.unpack_from(">H", stripped, 26)[0] - 1
    struct.pack_into(">H", stripped, 26, count)
    struct.pack_into(">Q", stripped, 28 + 8 * count, 0)
    struct.pack_into(">Q", stripped, 284 + 8 * count, 0)
    path = tmp_path / "stripped.eif"
    path.write_bytes(with_checksum(bytes(stripped)))
    found = measure(path).registers()
    assert found == {index: value for index, value in pcrs.registers().items() if index != 8}
