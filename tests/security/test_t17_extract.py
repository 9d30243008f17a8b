"""T-17: an EIF of somebody else's making that tries to write outside of where it is taken apart.

Beside each trick stands the same image without it, which is written.
"""

import gzip
import pathlib
import random
import stat
import time
import tracemalloc
from collections.abc import Iterator

import pytest
from tests.support import eif_images
from tests.support.ramdisks import FOLDER, LINK, Record, archive

from cloister.build.eif import open_eif
from cloister.build.explain import contents, difference, extract
from cloister.cli.main import run
from cloister.errors import CloisterError, MalformedImage

HONEST = Record(name="honest", data=b"x")


@pytest.fixture(autouse=True)
def nothing_is_written_outside(tmp_path: pathlib.Path) -> Iterator[None]:
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / "outside").mkdir()
    yield
    assert (tmp_path / "victim").read_text() == "untouched"
    assert not any((tmp_path / "outside").iterdir())
    assert {path.name for path in tmp_path.iterdir()} <= {
        "victim",
        "outside",
        "image.eif",
        "into",
        "twin",
    }


def taken_apart(tmp_path: pathlib.Path, *records: Record, to: str = "into") -> list[str]:
    raw, _ = eif_images.image([archive(HONEST), archive(*records)])
    (tmp_path / "image.eif").write_bytes(raw)
    with open_eif(tmp_path / "image.eif") as image:
        return extract(image, tmp_path / to)


@pytest.mark.parametrize("name", ["../victim", "../../victim", "a/../../../victim", "a/..", ".."])
def test_t17_a_name_that_climbs_out_of_the_folder_is_refused(
    name: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(MalformedImage, match="leads out"):
        taken_apart(tmp_path, Record(name=name, data=b"evil"))
    taken_apart(tmp_path, HONEST, to="twin")


def test_t17_an_absolute_name_lands_in_the_folder(tmp_path: pathlib.Path) -> None:
    taken_apart(tmp_path, Record(name=f"{tmp_path}/victim", data=b"evil"))
    inside = tmp_path / "into" / "ramdisk-1" / str(tmp_path).lstrip("/") / "victim"
    assert inside.read_bytes() == b"evil"


@pytest.mark.parametrize("target", ["/", "..", "../../outside", "{tmp}/outside"])
def test_t17_a_file_behind_a_link_is_refused(target: str, tmp_path: pathlib.Path) -> None:
    link = Record(name="a", kind=LINK, data=target.format(tmp=tmp_path).encode(), mode=0o777)
    with pytest.raises(MalformedImage, match="no folder"):
        taken_apart(tmp_path, link, Record(name="a/victim", data=b"evil"))
    folder = Record(name="a", kind=FOLDER, mode=0o755)
    taken_apart(tmp_path, folder, Record(name="a/victim", data=b"kept"), to="twin")
    assert (tmp_path / "twin" / "ramdisk-1" / "a" / "victim").read_bytes() == b"kept"


def test_t17_a_name_that_is_there_twice_is_written_once_and_over_nothing(
    tmp_path: pathlib.Path,
) -> None:
    """First a link out, then a file of that name: the file is what the kernel would have."""
    link = Record(name="a", kind=LINK, data=str(tmp_path / "victim").encode(), mode=0o777)
    taken_apart(tmp_path, link, Record(name="a", data=b"evil"))
    found = tmp_path / "into" / "ramdisk-1" / "a"
    assert not found.is_symlink()
    assert found.read_bytes() == b"evil"


@pytest.mark.parametrize(
    "kind", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, 0o030000]
)
def test_t17_a_special_file_is_named_and_not_made(kind: int, tmp_path: pathlib.Path) -> None:
    (left_out,) = taken_apart(tmp_path, Record(name="evil", kind=kind), HONEST)
    assert left_out.startswith("ramdisk-1/evil")
    made = tmp_path / "into" / "ramdisk-1"
    assert [path.name for path in made.iterdir()] == ["honest"]


def test_t17_set_id_bits_are_not_set(tmp_path: pathlib.Path) -> None:
    taken_apart(tmp_path, Record(name="a", data=b"x", mode=0o6755))
    made = tmp_path / "into" / "ramdisk-1" / "a"
    assert stat.S_IMODE(made.stat().st_mode) == 0o755


def test_t17_a_hard_link_is_to_a_file_of_its_own_archive(tmp_path: pathlib.Path) -> None:
    """Inode numbers are the archive's own: they name no file of this machine."""
    inode = (tmp_path / "victim").stat().st_ino & 0xFFFF_FFFF
    taken_apart(tmp_path, Record(name="a", inode=inode, links=2, data=b""))
    made = tmp_path / "into" / "ramdisk-1" / "a"
    assert made.read_bytes() == b""
    assert not made.samefile(tmp_path / "victim")


def test_t17_a_compressed_ramdisk_that_is_a_bomb_is_stopped(tmp_path: pathlib.Path) -> None:
    bomb = gzip.compress(bytes(300 << 20), compresslevel=1)
    raw, _ = eif_images.image([archive(HONEST), bomb])
    (tmp_path / "image.eif").write_bytes(raw)
    with open_eif(tmp_path / "image.eif") as image, pytest.raises(MalformedImage, match="bomb"):
        extract(image, tmp_path / "into")
    packed, _ = eif_images.image([archive(HONEST), gzip.compress(archive(HONEST))])
    (tmp_path / "image.eif").write_bytes(packed)
    with open_eif(tmp_path / "image.eif") as image:
        extract(image, tmp_path / "twin")


def test_t17_files_behind_a_compressed_archive_are_not_hidden(tmp_path: pathlib.Path) -> None:
    """The kernel goes on after a gzip stream, so whoever looks at an image has to as well."""
    shown = gzip.compress(archive(HONEST))
    hidden = archive(Record(name="hidden", data=b"evil"))
    for behind in (gzip.compress(hidden), bytes(512) + gzip.compress(hidden), hidden):
        raw, _ = eif_images.image([archive(HONEST), shown + behind])
        (tmp_path / "image.eif").write_bytes(raw)
        with open_eif(tmp_path / "image.eif") as image, contents(image) as found:
            assert set(found[1].items) == {b"honest", b"hidden"}
            assert bytes(found[1].items[b"hidden"].data) == b"evil"
    raw, _ = eif_images.image([archive(HONEST), shown + b"junk"])
    (tmp_path / "image.eif").write_bytes(raw)
    at = raw.index(b"junk")
    with (
        open_eif(tmp_path / "image.eif") as image,
        pytest.raises(MalformedImage, match=f"offset {at}: what follows"),
    ):
        extract(image, tmp_path / "into")
    raw, _ = eif_images.image([archive(HONEST), shown + bytes(512)])
    (tmp_path / "image.eif").write_bytes(raw)
    with open_eif(tmp_path / "image.eif") as image:
        extract(image, tmp_path / "twin")


def test_t17_a_record_that_says_to_be_huge_costs_no_memory(tmp_path: pathlib.Path) -> None:
    raw = bytearray(archive(Record(name="a", data=b"x" * 100)))
    raw[54:62] = b"FFFFFFFF"
    image_bytes, _ = eif_images.image([archive(HONEST), bytes(raw)])
    (tmp_path / "image.eif").write_bytes(image_bytes)
    tracemalloc.start()
    try:
        with (
            open_eif(tmp_path / "image.eif") as image,
            pytest.raises(MalformedImage, match="offset"),
        ):
            extract(image, tmp_path / "into")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_t17_many_names_of_one_inode_take_no_time(tmp_path: pathlib.Path) -> None:
    """Each name looks for the one that carries the bytes; none of these does."""
    many = [Record(name=f"n{index}", inode=9, links=20_000) for index in range(20_000)]
    raw, _ = eif_images.image([archive(HONEST), archive(*many)])
    (tmp_path / "image.eif").write_bytes(raw)
    started = time.monotonic()
    with open_eif(tmp_path / "image.eif") as image, contents(image) as found:
        assert len(found[1].items) == 20_000
    assert time.monotonic() - started < 10


DEEP = b"[" * 900 + b"]" * 900
ODD = [
    *(
        b"5",
        b"[]",
        b"null",
        b"",
        b"\xff",
        b"NaN",
        b"1e999",
        b"9" * 5000,
        DEEP,
        b'{"a":' + DEEP + b"}",
    ),
    *(b'{"argv":5,"env":3}', b'{"argv":"a","env":[1,[2]]}', b'{"env":{"a":1},"cwd":{},"user":[1]}'),
    *(b'{"argv":["\\ud800"],"user":"\\u001b[31m"}', b'{"":{"":1}}', b'{"service":"\\u202e"}'),
]


@pytest.mark.parametrize(
    "where", ["cloister/process.json", "cloister/config.json", "cmd", "metadata"]
)
def test_t17_documents_of_another_shape_are_described_and_never_crash(
    where: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What an image says of itself is JSON of whoever made it."""
    good = archive(Record(name="cloister/process.json", data=b'{"argv":["/a"],"env":[["A","1"]]}'))
    for number, said in enumerate((b'{"argv":["/a"]}', *ODD)):
        process = Record(name="cloister/process.json", data=b'{"argv":["/a"]}')
        records = [process] if where == "cloister/config.json" else []
        records += [Record(name=where, data=said)] if where != "metadata" else []
        raw, _ = eif_images.image(
            [archive(HONEST), archive(*records)], metadata=said if where == "metadata" else b"{}"
        )
        path = tmp_path / "image.eif"
        path.write_bytes(raw)
        (tmp_path / "twin").write_bytes(eif_images.image([archive(HONEST), good])[0])
        assert run(["describe", str(path)]) == 0, number
        assert run(["describe", str(path), "--diff", str(tmp_path / "twin")]) == 1, number
        shown = capsys.readouterr().out
        assert all(char.isprintable() or char == "\n" for char in shown), number


def test_t17_a_mutated_image_is_described_or_refused_and_never_crashes(
    tmp_path: pathlib.Path,
) -> None:
    """Ramdisks with bits flipped, the checksum put right: 300 places, fixed."""
    raw, _ = eif_images.image(
        [
            archive(HONEST),
            archive(
                Record(name="d", kind=FOLDER, mode=0o755),
                Record(name="d/a", data=b"data" * 30, inode=90, links=2),
                Record(name="d/b", inode=90, links=2),
                Record(name="l", kind=LINK, data=b"d/a", mode=0o777),
            ),
        ]
    )
    (tmp_path / "image.eif").write_bytes(raw)
    draw = random.Random(17)  # noqa: S311 - the same each time
    outcomes = set()
    with open_eif(tmp_path / "image.eif") as honest:
        assert difference(honest, honest).changes == []
        for number in range(300):
            changed = bytearray(raw)
            changed[draw.randrange(548, len(raw))] ^= 1 << draw.randrange(8)
            (tmp_path / "twin").mkdir(exist_ok=True)
            mutated = tmp_path / "twin" / "mutated.eif"
            mutated.write_bytes(eif_images.with_checksum(bytes(changed)))
            try:
                with open_eif(mutated) as image:
                    # A changed bit is never told as "the same".
                    assert difference(honest, image).changes
                    extract(image, tmp_path / "twin" / f"{number}")
                outcomes.add("described")
            except CloisterError:
                outcomes.add("refused")
    assert outcomes == {"described", "refused"}
