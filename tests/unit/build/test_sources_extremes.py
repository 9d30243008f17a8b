"""Saved images at the ends of what a format can say: long names, holes, numbers without end."""

import pathlib
import tarfile

import pytest
from tests.support import saved_images as si
from tests.support.saved_images import Entry, file, folder, hard_link, symlink

from cloister.build.content import Sparse
from cloister.build.ramdisk import Ramdisk, Records
from cloister.build.rootfs import File, Symlink, Tree
from cloister.build.sources import SavedImage
from cloister.errors import MalformedImage

FORMS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT}
LONGEST_PATH = 4096 - len("rootfs/") - 1
GIB = 1 << 30


def merged(tmp_path: pathlib.Path, *layers: bytes) -> Tree:
    path = si.docker_save(tmp_path / "image.tar", layers)
    return SavedImage(path, tmp_path).load().tree


def holes(name: str, size: int, *pieces: tuple[int, bytes]) -> Entry:
    """A sparse file as GNU tar 1.29 and later write it (pax, version 1.0)."""
    listed = [len(pieces), *(number for at, data in pieces for number in (at, len(data)))]
    head = "".join(f"{number}\n" for number in listed).encode()
    head += bytes(-len(head) % tarfile.BLOCKSIZE)
    pax = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(size),
    }
    return file(name, head + b"".join(data for _, data in pieces), pax=pax)


def path_of(length: int) -> str:
    """A path of so many bytes, of parts that are not too long."""
    parts = "/".join(["p" * 200] * (length // 201))
    return f"{parts}/{'q' * (length - len(parts) - 1)}" if length > len(parts) + 1 else parts


def with_bytes(layer: bytes, at: int, data: bytes) -> bytes:
    """The same layer with these bytes in its first head, whose checksum is right."""
    head = bytearray(layer)
    head[at : at + len(data)] = data
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head[:512])
    return bytes(head)


def test_a_head_with_nonsense_where_device_numbers_are_is_refused(tmp_path: pathlib.Path) -> None:
    """Found by ``fuzz/python/layers.py``: the library and Go refuse it, the fast reader did not."""
    good = si.layer(file("app"))
    assert merged(tmp_path, with_bytes(good, 329, bytes(16))).node(b"app")
    with pytest.raises(MalformedImage):
        merged(tmp_path, with_bytes(good, 329, b"\1" * 16))


def test_numbers_that_fill_their_field_are_read_to_their_last_digit(tmp_path: pathlib.Path) -> None:
    """Found by ``fuzz/python/layers.py``: the fast reader took what lies before the end for all.

    A length that is read as an eighth of what another tool reads would show that tool other files.
    """
    good = si.layer(file("app", b"12345678"))
    tree = merged(tmp_path, with_bytes(good, 108, b"00000017"))
    node = tree.node(b"app")
    assert node is not None
    assert node.uid == 0o17
    node = merged(tmp_path, with_bytes(good, 124, b"000000000010")).node(b"app")
    assert isinstance(node, File)
    assert b"".join(node.content.blocks()) == b"12345678"


@pytest.mark.parametrize("form", FORMS)
def test_long_targets_of_links_survive(form: str, tmp_path: pathlib.Path) -> None:
    name, target = path_of(700), "../" * 100 + "t" * 200
    entries = [file(name, b"long"), hard_link("same", name), symlink("link", target)]
    tree = merged(tmp_path, si.layer(*entries, form=FORMS[form]))
    link = tree.node(b"link")
    assert isinstance(link, Symlink)
    assert link.target == target.encode()
    assert tree.node(b"same") is tree.node(name.encode())


@pytest.mark.parametrize("form", FORMS)
def test_the_longest_names_are_taken_and_longer_ones_refused(
    form: str, tmp_path: pathlib.Path
) -> None:
    longest, part = path_of(LONGEST_PATH), "d/" + "é" * 127 + "e"
    tree = merged(tmp_path, si.layer(file(longest), file(part), form=FORMS[form]))
    assert tree.node(longest.encode())
    assert tree.node(part.encode())
    for name in (path_of(LONGEST_PATH + 1), part + "e"):
        with pytest.raises(MalformedImage, match="too long"):
            merged(tmp_path, si.layer(file(name), form=FORMS[form]))


def test_a_file_of_one_hole_and_one_of_nothing_are_zeros(tmp_path: pathlib.Path) -> None:
    entries = [holes("hole", 3 << 20), holes("empty", 0), hard_link("same", "hole")]
    tree = merged(tmp_path, si.layer(*entries))
    hole, empty = tree.node(b"hole"), tree.node(b"empty")
    assert isinstance(hole, File)
    assert isinstance(empty, File)
    assert b"".join(hole.content.blocks()) == bytes(3 << 20)
    assert b"".join(empty.content.blocks()) == b""
    assert tree.node(b"same") is hole


def test_holes_are_nowhere_but_in_the_ramdisk(tmp_path: pathlib.Path) -> None:
    """A hole of 3 GiB costs the archive nothing, and no memory while it is passed through."""
    tree = merged(tmp_path, si.layer(holes("huge", 3 * GIB, (GIB, b"middle"))))
    node = tree.node(b"huge")
    assert isinstance(node, File)
    assert isinstance(node.content, Sparse)
    assert max(len(block) for block in node.content.blocks()) <= 1 << 20
    assert sum(len(block) for block in node.content.blocks()) == 3 * GIB
    assert Ramdisk.of(tree).size > 3 * GIB


def test_a_file_that_a_ramdisk_cannot_say_is_named(tmp_path: pathlib.Path) -> None:
    """The format has 32 bits for a length: one byte less is taken."""
    largest = merged(tmp_path, si.layer(holes("huge", 4 * GIB - 1)))
    assert Records.of(largest).size > 4 * GIB
    tree = merged(tmp_path, si.layer(holes("huge", 4 * GIB)))
    with pytest.raises(MalformedImage, match=r"`huge` has a size of 4294967296.*4 GiB"):
        Records.of(tree)


def test_more_holes_than_an_image_may_unpack_to_are_refused(tmp_path: pathlib.Path) -> None:
    assert len(merged(tmp_path, si.layer(holes("a", 3 * GIB), holes("b", 3 * GIB)))) == 2
    many = [holes(f"hole-{number}", 3 * GIB) for number in range(22)]
    with pytest.raises(MalformedImage, match="unpacks to more than 64 GiB"):
        merged(tmp_path, si.layer(*many))


@pytest.mark.parametrize("size", [9 * GIB, 1 << 70], ids=["9 GiB", "2^70"])
def test_a_length_beyond_octal_that_is_not_there_is_refused(
    size: int, tmp_path: pathlib.Path
) -> None:
    """GNU writes it to the base of 256, pax as text; neither is believed."""
    head = tarfile.TarInfo("huge")
    head.size = size
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        raw = head.tobuf(form) + bytes(1024)
        with pytest.raises(MalformedImage):
            merged(tmp_path, si.layer(folder("good"))[:512] + raw)
        assert len(merged(tmp_path, si.layer(folder("good")))) == 1
