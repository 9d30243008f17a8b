"""T-17: an image that tries to reach outside of itself, or to be more than there is room for.

Each trick stands beside its honest twin, which is accepted: a refusal alone proves nothing. No
trick writes a file: an image is merged in memory, and what is unpacked goes to files without a
name, so each test looks that nothing appeared beside the archive.
"""

import gzip
import json
import pathlib
import random
import tarfile
import time
import tracemalloc
from collections.abc import Iterator

import pytest
from tests.support import saved_images as si
from tests.support.saved_images import Entry, file, folder, hard_link, symlink

from cloister.build.ramdisk import Ramdisk
from cloister.build.rootfs import Tree
from cloister.build.sources import Limits, SavedImage
from cloister.errors import CloisterError, MalformedImage

SMALL = Limits(
    entries=200, unpacked=64 << 20, ratio_from=1 << 20, layers=4, metadata=1 << 16, header=1 << 16
)


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: pathlib.Path) -> Iterator[None]:
    (tmp_path / "victim").write_text("untouched")
    yield
    names = {path.name for path in tmp_path.iterdir()}
    assert names <= {"victim", "image.tar", "layout"}
    assert (tmp_path / "victim").read_text() == "untouched"


def merged(tmp_path: pathlib.Path, *layers: bytes) -> Tree:
    path = si.docker_save(tmp_path / "image.tar", layers)
    return SavedImage(path, tmp_path, limits=SMALL).load().tree


def refused(tmp_path: pathlib.Path, *layers: bytes) -> str:
    with pytest.raises(MalformedImage) as problem:
        merged(tmp_path, *layers)
    return problem.value.message


@pytest.mark.parametrize(
    "name", ["../victim", "a/../../victim", "/../victim", "a/..", "..", "./../victim"]
)
def test_t17_a_path_that_climbs_out_is_refused_by_name(name: str, tmp_path: pathlib.Path) -> None:
    assert "leads out" in refused(tmp_path, si.layer(file(name)))
    for honest in ("./victim", "/victim", "a/...", "..a"):
        merged(tmp_path, si.layer(file(honest)))


def test_t17_an_absolute_link_leads_to_the_image_s_own_root(tmp_path: pathlib.Path) -> None:
    """The classic: a link to a folder of the host, then a file through it."""
    host = str(tmp_path).lstrip("/")
    tree = merged(
        tmp_path,
        si.layer(symlink("out", str(tmp_path)), symlink("up", "../../../../" + host)),
        si.layer(file("out/victim", b"evil"), file("up/victim2", b"evil")),
    )
    # Both landed in the image, at the path that the link means there.
    assert tree.node(f"{host}/victim".encode()) is not None
    assert tree.node(f"{host}/victim2".encode()) is not None


def test_t17_links_in_a_circle_are_refused(tmp_path: pathlib.Path) -> None:
    circle = si.layer(symlink("a", "b"), symlink("b", "a"))
    assert "too many links" in refused(tmp_path, circle, si.layer(file("a/x")))
    merged(tmp_path, si.layer(symlink("a", "b"), folder("b")), si.layer(file("a/x")))


@pytest.mark.parametrize("target", ["../victim", "/../victim", "nothing", "folder", "self", ""])
def test_t17_a_hard_link_leads_to_a_file_of_the_image_or_nowhere(
    target: str, tmp_path: pathlib.Path
) -> None:
    message = refused(tmp_path, si.layer(folder("folder"), hard_link("self", target)))
    assert "`self`" in message
    merged(tmp_path, si.layer(file("there"), hard_link("self", "there")))


def test_t17_a_hard_link_through_a_link_stays_inside(tmp_path: pathlib.Path) -> None:
    out = symlink("out", str(tmp_path))
    assert "no file of the image" in refused(
        tmp_path, si.layer(out, hard_link("stolen", "out/victim"))
    )
    inside = si.layer(folder("in"), file("in/x"), symlink("out", "/in"), hard_link("y", "out/x"))
    tree = merged(tmp_path, inside)
    assert tree.node(b"y") is tree.node(b"in/x")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"s", b"V"])
def test_t17_a_special_file_is_refused_by_name(kind: bytes, tmp_path: pathlib.Path) -> None:
    """In /dev a device node is left out and said so: an enclave has its own."""
    for name in ("sda", "home/x", "devil/x"):
        assert f"`{name}`" in refused(tmp_path, si.layer(Entry(name=name, kind=kind)))
    merged(tmp_path, si.layer(file("sda")))


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "a/.wh..", "a/.wh..."])
def test_t17_a_whiteout_of_a_parent_is_refused(name: str, tmp_path: pathlib.Path) -> None:
    lower = si.layer(folder("a"), file("a/x"), file("b"))
    assert "whiteout of nothing" in refused(tmp_path, lower, si.layer(file(name, b"")))
    tree = merged(tmp_path, lower, si.layer(file("a/.wh.x", b"")))
    assert [path for path, _ in tree] == [b"a", b"b"]


def test_t17_a_whiteout_through_a_link_hides_inside_the_image_only(tmp_path: pathlib.Path) -> None:
    lower = si.layer(symlink("out", str(tmp_path)), file("b"))
    tree = merged(tmp_path, lower, si.layer(file("out/.wh.victim", b""), file(".wh.b", b"")))
    assert [path for path, _ in tree] == [b"out"]


def test_t17_an_entry_below_a_file_is_refused(tmp_path: pathlib.Path) -> None:
    assert "no folder" in refused(tmp_path, si.layer(file("a"), file("a/b")))
    assert "no folder" in refused(tmp_path, si.layer(file("a")), si.layer(folder("a/b/c")))
    merged(tmp_path, si.layer(folder("a"), file("a/b")))


def test_t17_a_decompression_bomb_is_stopped_early(tmp_path: pathlib.Path) -> None:
    bomb = si.layer(file("zeros", bytes(48 << 20)))
    for compression in ("gzip", "zstd"):
        files = si.oci_files([bomb], compression=compression)
        path = si.archive(tmp_path / "image.tar", files)
        with pytest.raises(MalformedImage, match="bomb"):
            SavedImage(path, tmp_path, limits=SMALL).load()
        # Honest data of the same length passes.
        noise = random.Random(1).randbytes(8 << 20)  # noqa: S311 - the same each time
        honest = si.oci_files([si.layer(file("noise", noise))], compression=compression)
        SavedImage(si.archive(path, honest), tmp_path, limits=SMALL).load()


def test_t17_an_archive_that_is_a_bomb_as_a_whole_is_stopped(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(gzip.compress(bytes(80 << 20)))
    with pytest.raises(MalformedImage, match="bomb"):
        SavedImage(path, tmp_path, limits=SMALL)


def test_t17_a_sparse_file_larger_than_the_limit_is_refused(tmp_path: pathlib.Path) -> None:
    """A few bytes say that they are terabytes."""
    raw = bytearray(si.layer(file("s", b""), form=tarfile.GNU_FORMAT))

    def sparse(size: int) -> bytes:
        raw[156:157] = tarfile.GNUTYPE_SPARSE
        raw[483:495] = b"%011o\0" % size  # realsize of the old GNU format
        raw[148:156] = b" " * 8
        raw[148:156] = b"%06o\0 " % sum(raw[:512])
        return bytes(raw)

    assert "unpacks to more" in refused(tmp_path, sparse((1 << 33) - 1))
    merged(tmp_path, sparse(1 << 20))


def test_t17_too_many_entries_or_layers_are_refused(tmp_path: pathlib.Path) -> None:
    def many(count: int) -> bytes:
        return si.layer(*(file(f"f{index}", b"") for index in range(count)))

    assert "more than 200 entries" in refused(tmp_path, many(201))
    merged(tmp_path, many(150))
    assert "5 layers" in refused(tmp_path, *([many(1)] * 5))
    merged(tmp_path, *([many(1)] * 4))


def test_t17_a_giant_header_costs_no_memory(tmp_path: pathlib.Path) -> None:
    """A pax header that says to be 4 GiB, and one that is larger than the limit."""
    raw = bytearray(si.layer(Entry(name="a", pax={"comment": "x" * (256 << 10)})))
    tracemalloc.start()
    try:
        assert "headers of more than" in refused(tmp_path, bytes(raw))
        raw[124:136] = b"%011o\0" % ((1 << 32) - 1)
        raw[148:156] = b" " * 8
        raw[148:156] = b"%06o\0 " % sum(raw[:512])
        assert "headers of more than" in refused(tmp_path, bytes(raw))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    merged(tmp_path, si.layer(Entry(name="a", pax={"comment": "x" * 1000})))


def test_t17_headers_upon_headers_are_refused(tmp_path: pathlib.Path) -> None:
    """Long names before long names without end, which a reader may follow by recursion."""
    head = si.layer(Entry(name="y" * 150), form=tarfile.GNU_FORMAT)[:1024]
    refused(tmp_path, head * 20_000 + si.layer(file("a")))
    merged(tmp_path, head + si.layer(file("a")))


def test_t17_an_archive_that_ends_early_or_is_damaged_in_the_middle_is_refused(
    tmp_path: pathlib.Path,
) -> None:
    """``tarfile`` alone takes a damaged head for the end, and the files behind it vanish."""
    whole = si.layer(file("a", b"x" * 700), file("b"), file("c"))
    merged(tmp_path, whole)
    for end in (100, 600, 1100, 1800):
        refused(tmp_path, whole[:end])
    damaged = bytearray(whole)
    damaged[1536] ^= 0xFF
    assert "offset 1536" in refused(tmp_path, bytes(damaged))


def test_t17_whiteouts_by_the_thousand_take_no_time(tmp_path: pathlib.Path) -> None:
    """One for every entry of a deep tree: what is hidden is looked at once."""
    depth, width = 100, 200
    folders = ["/".join(["d"] * length) for length in range(1, depth + 1)]
    lower = [folder(name) for name in folders]
    lower += [file(f"{folders[-1]}/f{index}", b"") for index in range(width)]
    upper = [file(f"{name}/.wh..wh..opq", b"") for name in folders[::-1] for _ in range(20)]
    upper += [file(f"{folders[-1]}/new", b"")]
    path = si.docker_save(tmp_path / "image.tar", [si.layer(*lower), si.layer(*upper)])
    started = time.monotonic()
    tree = SavedImage(path, tmp_path).load().tree
    assert time.monotonic() - started < 5
    assert tree.node(f"{folders[-1]}/new".encode()) is not None
    assert tree.node(f"{folders[-1]}/f0".encode()) is None


@pytest.mark.parametrize("value", ["../../victim", "/etc/passwd", "blobs/sha256/../../../victim"])
def test_t17_a_manifest_that_names_a_file_elsewhere_is_refused(
    value: str, tmp_path: pathlib.Path
) -> None:
    files = si.oci_files([si.layer(file("app"))])
    del files["index.json"]
    manifest = [{"Config": value, "RepoTags": None, "Layers": []}]
    layout = si.written(tmp_path / "layout", files | {"manifest.json": _json(manifest)})
    with pytest.raises(MalformedImage):
        SavedImage(layout, tmp_path)
    (tmp_path / "layout" / "manifest.json").unlink()
    SavedImage(
        si.written(layout, si.oci_files([si.layer(file("app"))])), tmp_path, limits=SMALL
    ).load()


def test_t17_a_layout_with_a_link_in_it_is_refused(tmp_path: pathlib.Path) -> None:
    files = si.oci_files([si.layer(file("app"))])
    layout = si.written(tmp_path / "layout", files)
    SavedImage(layout, tmp_path).load()
    name = next(name for name in files if name.startswith("blobs/"))
    (layout / name).unlink()
    (layout / name).symlink_to(tmp_path / "victim")
    with pytest.raises(MalformedImage):
        SavedImage(layout, tmp_path).load()


def test_t17_a_saved_image_with_a_bit_flipped_is_refused_or_the_same(
    tmp_path: pathlib.Path,
) -> None:
    """Never a crash, never another tree: 400 places, fixed."""
    path = si.docker_save(
        tmp_path / "image.tar",
        [si.layer(folder("a"), file("a/x", b"data" * 100), symlink("l", "a/x"))],
    )
    raw = path.read_bytes()

    def seen() -> bytes:
        tree = SavedImage(path, tmp_path, limits=SMALL).load().tree
        return b"".join(Ramdisk.of(tree, epoch=2_000_000_000).blocks())

    right = seen()
    draw = random.Random(17)  # noqa: S311 - the same each time
    refusals = 0
    for _ in range(400):
        changed = bytearray(raw)
        changed[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            assert seen() == right
        except CloisterError:
            refusals += 1
    assert refusals > 50


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
