"""The image format: byte for byte, in both directions, and nothing but what it allows."""

import dataclasses
import datetime as dt
import hashlib
import io
import json
import pathlib
import struct
import zlib

import cbor2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from tests.support.eif_images import NOW, image, pair, pair_files, with_checksum

from cloister.build.eif import Kind, Payload, SigningPair, crc, measure, metadata, open_eif, write
from cloister.build.eif.read import parse
from cloister.build.eif.signature import verify
from cloister.errors import KeyFileError, MalformedImage, MissingInput

PAIR = pair()
RAMDISKS = st.lists(st.binary(max_size=300), min_size=1, max_size=4)
MAYBE = st.none() | st.binary(max_size=60)


def by_hand(contents: bytes) -> bytes:
    return hashlib.sha384(bytes(48) + hashlib.sha384(contents).digest()).digest()


def test_the_layout_is_what_the_page_says() -> None:
    file, _ = image([b"boot", b"app"], kernel=b"kernel", cmdline=b"quiet", metadata=b"{}")
    assert file[:4] == b".eif"
    assert struct.unpack_from(">HHQQHH", file, 4) == (4, 0, 1 << 30, 2, 0, 5)
    offsets = struct.unpack_from(">32Q", file, 28)
    sizes = struct.unpack_from(">32Q", file, 284)
    assert offsets[:5] == (548, 566, 583, 597, 613)
    assert sizes[:5] == (6, 5, 2, 4, 3)
    assert not any(offsets[5:] + sizes[5:])
    assert file[540:544] == bytes(4)
    assert int.from_bytes(file[544:548], "big") == zlib.crc32(file[:544] + file[548:])
    kinds = [struct.unpack_from(">HHQ", file, offset) for offset in offsets[:5]]
    assert kinds == [(1, 0, 6), (2, 0, 5), (5, 0, 2), (3, 0, 4), (3, 0, 3)]
    assert file[548:] == b"".join(
        struct.pack(">HHQ", kind, 0, len(data)) + data
        for kind, data in ((1, b"kernel"), (2, b"quiet"), (5, b"{}"), (3, b"boot"), (3, b"app"))
    )


def test_the_registers_cover_what_they_should() -> None:
    _, pcrs = image([b"r0", b"r1", b"r2"], kernel=b"k", cmdline=b"c", signing=PAIR)
    assert pcrs.pcr0 == by_hand(b"kcr0r1r2")
    assert pcrs.pcr1 == by_hand(b"kcr0")
    assert pcrs.pcr2 == by_hand(b"r1r2")
    assert pcrs.pcr8 == by_hand(PAIR.certificate_der)
    _, unsigned = image([b"r0"])
    assert unsigned.registers() == {0: by_hand(b"r0"), 1: by_hand(b"r0"), 2: by_hand(b"")}


def test_metadata_is_in_no_register() -> None:
    assert image([b"r"], metadata=b"{}")[1] == image([b"r"], metadata=None)[1]
    assert image([b"r"])[1] != image([b"s"])[1]


@given(MAYBE, MAYBE, MAYBE, RAMDISKS, st.sampled_from([None, PAIR]))
def test_write_read_write_is_identity(
    kernel: bytes | None,
    cmdline: bytes | None,
    about: bytes | None,
    ramdisks: list[bytes],
    signing: SigningPair | None,
) -> None:
    file, pcrs = image(ramdisks, kernel=kernel, cmdline=cmdline, metadata=about, signing=signing)
    read = parse(file)
    assert [bytes(section.payload) for section in read.ramdisks] == ramdisks
    assert measure(read) == pcrs
    payloads = [
        Payload.of(section.kind, bytes(section.payload))
        for section in read.sections
        if section.kind is not Kind.SIGNATURE
    ]
    out = io.BytesIO()
    again = write(
        out, payloads, memory=read.default_memory, cpus=read.default_cpus, signing=signing
    )
    assert out.getvalue() == file
    assert again == pcrs


@given(st.binary(max_size=400), st.binary(max_size=400))
def test_checksums_combine(first: bytes, second: bytes) -> None:
    combined = crc.combine(zlib.crc32(first), zlib.crc32(second), len(second))
    assert combined == zlib.crc32(first + second)


def test_checksums_combine_over_more_than_four_gib() -> None:
    """Zeros only: appending them is what the matrix does, so two halves must equal the whole."""
    half = crc.combine(0x1234_5678, 0, 5 << 30)
    assert crc.combine(half, 0, 5 << 30) == crc.combine(0x1234_5678, 0, 10 << 30)


@given(st.data())
def test_a_flipped_bit_or_a_cut_is_refused(data: st.DataObject) -> None:
    file, _ = image([b"boot", b"application"], signing=PAIR)
    assert parse(file).sections
    broken = bytearray(file)
    broken[data.draw(st.integers(0, len(file) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(MalformedImage, match="offset"):
        parse(bytes(broken))
    with pytest.raises(MalformedImage, match="offset"):
        parse(file[: data.draw(st.integers(0, len(file) - 1))])
    with pytest.raises(MalformedImage, match="offset"):
        parse(file + b"\0")


def changed(at: int, value: bytes) -> bytes:
    file, _ = image([b"boot", b"app"], cmdline=b"quiet", metadata=None)
    return with_checksum(file[:at] + value + file[at + len(value) :])


@pytest.mark.parametrize(
    ("at", "value", "problem"),
    [
        (0, b"x", "offset 0: the magic"),
        (5, b"\x03", "offset 4: the version is 3"),
        (7, b"\x02", "offset 6: the flags"),
        (25, b"\x01", "offset 24: a reserved field"),
        (27, b"\x00", "offset 26: the section count is 0"),
        (27, b"\x21", "offset 26: the section count is 33"),
        (27, b"\x02", "offset 44: the table has an entry 2"),
        (27, b"\x04", "offset 52: section 3 is said to be at 0"),
        (35, b"\xff", "offset 28: section 0 is said to be at"),
        (28, b"\xff" * 8, "offset 28: section 0 is said to be at 18446744073709551615"),
        (291, b"\xff", "offset 552: section 0 has 5 bytes"),
        (543, b"\x01", "offset 540: a reserved field"),
        (549, b"\x09", "offset 548: section 0 is of the unknown kind 9"),
        (549, b"\x00", "offset 548: section 0 is of the unknown kind 0"),
        (551, b"\x01", "offset 550: the flags of section 0"),
        (565, b"\x01", "is of the unknown kind 259"),
    ],
)
def test_each_rule_is_checked_by_itself(at: int, value: bytes, problem: str) -> None:
    """The checksum is put right, so that the rule itself has to notice."""
    with pytest.raises(MalformedImage, match=problem):
        parse(changed(at, value))


def test_an_image_that_only_lost_its_checksum_is_read_again() -> None:
    """The twin of the test above."""
    file, pcrs = image([b"boot", b"app"], cmdline=b"quiet", metadata=None)
    assert with_checksum(file) == file
    assert measure(parse(changed(0, b"."))) == pcrs


def test_a_size_that_is_too_large_is_refused_before_anything_is_allocated() -> None:
    huge = struct.pack(">Q", 1 << 62)
    file = changed(284, huge)
    file = with_checksum(file[:552] + huge + file[560:])
    with pytest.raises(MalformedImage, match="offset 552: section 0 has 4611686018427387904 bytes"):
        parse(file)


def raw(sections: list[tuple[int, bytes]]) -> bytes:
    header = bytearray(548)
    struct.pack_into(">4sHHQQHH", header, 0, b".eif", 4, 0, 0, 0, 0, len(sections))
    body = b""
    for index, (kind, data) in enumerate(sections):
        struct.pack_into(">Q", header, 28 + 8 * index, 548 + len(body))
        struct.pack_into(">Q", header, 284 + 8 * index, len(data))
        body += struct.pack(">HHQ", kind, 0, len(data)) + data
    return with_checksum(bytes(header) + body)


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ([(3, b"r"), (1, b"k")], "the order is not"),
        ([(4, b"s"), (3, b"r")], "the order is not"),
        ([(2, b"c"), (1, b"k"), (3, b"r")], "the order is not"),
        ([(1, b"k"), (1, b"k"), (3, b"r")], "a second kernel"),
        ([(5, b"{}"), (3, b"r"), (5, b"{}")], "a second metadata"),
        ([(1, b"k")], "no ramdisk"),
    ],
)
def test_sections_that_do_not_belong_are_refused(
    sections: list[tuple[int, bytes]], problem: str
) -> None:
    with pytest.raises(MalformedImage, match=problem):
        parse(raw(sections))


def test_other_writers_images_are_read() -> None:
    """The twin of the test above: metadata may stand anywhere before, a command line alone too."""
    for sections in (
        [(5, b"{}"), (2, b"c"), (3, b"r")],
        [(1, b"k"), (2, b"c"), (5, b"{}"), (3, b"r"), (3, b"s")],
        [(3, b"r"), (5, b"{}")],
    ):
        assert len(parse(raw(sections)).sections) == len(sections)


@pytest.mark.parametrize(
    "kinds", [[], [Kind.METADATA], [Kind.RAMDISK, Kind.METADATA], [Kind.METADATA] * 2, [3] * 33]
)
def test_the_writer_does_not_write_what_the_reader_refuses(kinds: list[Kind]) -> None:
    payloads = [Payload.of(Kind(kind), b"x") for kind in kinds]
    with pytest.raises(ValueError, match=r"section|ramdisk"):
        write(io.BytesIO(), payloads, memory=1, cpus=1)
    with pytest.raises(ValueError, match="bytes long"):
        write(io.BytesIO(), [Payload(Kind.RAMDISK, 2, [b"x"])], memory=1, cpus=1)


def test_the_signature_section_is_what_the_page_says() -> None:
    file, pcrs = image([b"boot"], signing=PAIR)
    section = parse(file).signature
    assert section is not None
    ((whole),) = cbor2.loads(bytes(section.payload))
    assert list(whole) == ["signing_certificate", "signature"]
    assert bytes(whole["signing_certificate"]) == PAIR.certificate_pem
    protected, unprotected, payload, signature = cbor2.loads(bytes(whole["signature"]))
    assert protected == bytes.fromhex("a1013822")
    assert unprotected == {}
    assert cbor2.loads(payload) == {"register_index": 0, "register_value": list(pcrs.pcr0)}
    assert list(cbor2.loads(payload)) == ["register_index", "register_value"]
    assert len(signature) == 96
    assert bytes(section.payload) == cbor2.dumps([whole])


def test_signing_is_deterministic() -> None:
    assert image([b"boot"], signing=PAIR) == image([b"boot"], signing=PAIR)
    assert image([b"boot"], signing=PAIR)[0] != image([b"toob"], signing=PAIR)[0]


def test_a_signature_of_another_image_or_key_is_refused(tmp_path: pathlib.Path) -> None:
    _, pcrs = image([b"boot"])
    section = PAIR.sign(pcrs.pcr0)
    assert verify(section, pcrs.pcr0).certificate_der == PAIR.certificate_der
    with pytest.raises(MalformedImage, match="another PCR0"):
        verify(section, bytes(48))
    other = SigningPair.load(*pair_files(tmp_path), now=NOW)
    stolen = dataclasses.replace(other, certificate_pem=PAIR.certificate_pem)
    with pytest.raises(MalformedImage, match="not made by its signing certificate"):
        verify(stolen.sign(pcrs.pcr0), pcrs.pcr0)


@given(st.data())
def test_a_mutated_signature_needs_the_same_key(data: st.DataObject) -> None:
    _, pcrs = image([b"boot"])
    section = bytearray(PAIR.sign(pcrs.pcr0))
    at = data.draw(st.integers(0, len(section) - 1))
    section[at] ^= data.draw(st.integers(1, 255))
    # What the certificate says beside its key is its issuer's business: another text is another
    # certificate, and so another PCR8. Nothing but the key makes the signature right.
    try:
        verified = verify(bytes(section), pcrs.pcr0)
    except MalformedImage:
        return
    assert verified.certificate.public_key() == PAIR.certificate.public_key()


@given(st.binary(max_size=60))
def test_any_bytes_as_a_signature_section_are_refused(section: bytes) -> None:
    with pytest.raises(MalformedImage):
        verify(section, bytes(48))


def test_a_deep_or_tagged_signature_section_is_refused() -> None:
    for section in (
        b"\x81" * 30_000,
        b"\xd9\x01\x02" * 900,
        b"\x9b" + b"\xff" * 8,
        b"\x81" * 40_000,
    ):
        with pytest.raises(MalformedImage, match="EIF signature section"):
            verify(section, bytes(48))


@pytest.mark.parametrize(
    ("spoil", "problem", "status"),
    [
        ("no certificate", "signing certificate `.*` does not exist", 66),
        ("no key", "signing key `.*` does not exist", 66),
        ("certificate is text", "not a certificate in PEM", 65),
        ("key is text", "not a private key in PEM", 65),
        ("key is encrypted", "encrypted with a password", 65),
        ("another key", "is not the key of", 65),
        ("P-256", "expected P-384", 65),
        ("RSA key", "kind RSAPublicKey, expected P-384", 65),
        ("expired", "expired on 2026-05-02", 65),
        ("not yet valid", "is valid from", 65),
    ],
)
def test_each_fault_of_a_signing_pair_has_its_own_message(  # noqa: C901 - one case a fault
    tmp_path: pathlib.Path, spoil: str, problem: str, status: int
) -> None:
    certificate, key = pair_files(tmp_path)
    SigningPair.load(certificate, key, now=NOW)
    form = serialization.PrivateFormat.PKCS8
    day = dt.timedelta(days=1)
    now = NOW
    match spoil:
        case "no certificate":
            certificate.unlink()
        case "no key":
            key.unlink()
        case "certificate is text":
            certificate.write_text("hello")
        case "key is text":
            key.write_bytes(certificate.read_bytes())
        case "key is encrypted":
            loaded = serialization.load_pem_private_key(key.read_bytes(), None)
            secret = serialization.BestAvailableEncryption(b"secret")
            key.write_bytes(loaded.private_bytes(serialization.Encoding.PEM, form, secret))
        case "another key":
            key = pair_files(tmp_path / "other")[1]
        case "P-256":
            certificate, key = pair_files(tmp_path, curve=ec.SECP256R1())
        case "RSA key":
            plain = serialization.NoEncryption()
            made = rsa.generate_private_key(65537, 2048)
            key.write_bytes(made.private_bytes(serialization.Encoding.PEM, form, plain))
        case "expired":
            pair_files(tmp_path, not_after=NOW - 30 * day, not_before=NOW - 60 * day)
        case "not yet valid":
            now = NOW - 60 * day
    with pytest.raises((KeyFileError, MissingInput), match=problem) as caught:
        SigningPair.load(certificate, key, now=now)
    assert caught.value.exit_status == status


def test_a_pem_with_text_around_it_gives_the_same_image(tmp_path: pathlib.Path) -> None:
    certificate, key = pair_files(tmp_path, scalar=0xC0FFEE)
    plain = SigningPair.load(certificate, key, now=NOW)
    certificate.write_bytes(b"a comment\r\n" + certificate.read_bytes().replace(b"\n", b"\r\n"))
    assert image([b"r"], signing=SigningPair.load(certificate, key, now=NOW)) == image(
        [b"r"], signing=plain
    )


def test_metadata_has_the_formats_keys_in_order() -> None:
    section = metadata.encode(
        name="hello",
        version="1",
        built_at=86_400,
        tool_version="9",
        kernel_version=None,
        docker={"Os": "linux"},
        custom={"größe": 1},
    )
    document = metadata.decode(section)
    assert list(document) == [
        "ImageName",
        "ImageVersion",
        "BuildMetadata",
        "DockerInfo",
        "CustomMetadata",
    ]
    assert list(document["BuildMetadata"]) == [
        "BuildTime",
        "BuildTool",
        "BuildToolVersion",
        "OperatingSystem",
        "KernelVersion",
    ]
    assert document["BuildMetadata"]["BuildTime"] == "1970-01-02T00:00:00Z"
    assert section == json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize("section", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'"' * (2 << 20)])
def test_metadata_of_a_stranger_is_refused(section: bytes) -> None:
    with pytest.raises(MalformedImage, match="EIF metadata"):
        metadata.decode(section)


def test_files(tmp_path: pathlib.Path) -> None:
    file, pcrs = image([b"boot", b"app"], signing=PAIR)
    path = tmp_path / "a.eif"
    with pytest.raises(MissingInput, match="there is no image"):
        measure(path)
    for short in (b"", b".eif", file[:547]):
        path.write_bytes(short)
        with pytest.raises(MalformedImage, match="shorter than a header"):
            measure(path)
    path.write_bytes(file)
    assert measure(path) == pcrs
    assert measure(str(path)).shown()["PCR0"] == pcrs.pcr0.hex()
    with open_eif(path) as opened:
        assert opened.architecture == "x86_64"
        held = opened.ramdisks[1].payload[:3]
    assert bytes(held) == b"app"


def test_an_image_for_aarch64_says_so() -> None:
    out = io.BytesIO()
    write(out, [Payload.of(Kind.RAMDISK, b"r")], memory=1, cpus=1, is_aarch64=True)
    assert parse(out.getvalue()).architecture == "aarch64"
