"""Ramdisks: one spelling for one tree, and a reader that takes nothing on trust."""

import pathlib
import random
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.build import cpio
from cloister.build.ramdisk import Ramdisk
from cloister.build.rootfs import Bytes, Directory, File, Node, Symlink, Tree
from cloister.errors import MalformedImage

NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..", b"TRAILER!!!")
)
MODES = st.integers(0, 0o7777)
IDS = st.integers(0, 0xFFFF_FFFE)


@st.composite
def trees(draw: st.DrawFn) -> dict[bytes, Node]:
    """Entries by path; folders, files, links, and two names of one file."""
    folders = [b"", *draw(st.lists(NAMES, unique=True, max_size=4))]
    nodes: dict[bytes, Node] = {
        name: Directory(mode=draw(MODES), uid=draw(IDS), gid=draw(IDS)) for name in folders[1:]
    }
    shared = File(mode=0o755, content=Bytes(b"shared"))
    for folder in folders:
        for name in draw(st.lists(NAMES, unique=True, max_size=4)):
            path = b"/".join(part for part in (folder, name) if part)
            if path in nodes:
                continue
            nodes[path] = draw(
                st.one_of(
                    st.builds(
                        File, mode=MODES, uid=IDS, gid=IDS, content=st.builds(Bytes, st.binary())
                    ),
                    st.builds(Symlink, mode=st.just(0o777), target=NAMES),
                    st.just(shared),
                )
            )
    return nodes


def tree_of(nodes: dict[bytes, Node], order: list[bytes] | None = None) -> Tree:
    tree = Tree()
    # A folder has to be there before what is in it; otherwise any order will do.
    for path in sorted(order or nodes, key=lambda path: path.count(b"/")):
        tree.put(path, nodes[path])
    return tree


def written(tree: Tree, mtime: int = 0) -> bytes:
    return b"".join(Ramdisk.of(tree, epoch=mtime).blocks())


def outcome(archive: bytes) -> MalformedImage | None:
    try:
        cpio.read(archive)
    except MalformedImage as problem:
        return problem
    return None


@given(trees(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(
    nodes: dict[bytes, Node], shuffler: random.Random
) -> None:
    order = list(nodes)
    shuffler.shuffle(order)
    assert written(tree_of(nodes, order)) == written(tree_of(nodes))


@given(trees())
def test_what_is_written_is_read(nodes: dict[bytes, Node]) -> None:
    archive = written(tree_of(nodes), mtime=7)
    assert len(archive) == Ramdisk.of(tree_of(nodes)).size
    assert len(archive) % 512 == 0
    entries = {entry.path: entry for entry in cpio.read(archive)}
    assert set(entries) == set(nodes)
    assert list(entries) == sorted(nodes)
    names: dict[tuple[int, int, int], bytes] = {}
    for path, node in nodes.items():
        entry = entries[path]
        assert (entry.mode & 0o7777, entry.uid, entry.gid) == (node.mode, node.uid, node.gid)
        assert entry.mtime == 7
        if isinstance(node, Symlink):
            assert bytes(entry.data) == node.target
        if isinstance(node, File) and bytes(entry.data):
            names[entry.inode] = bytes(entry.data)
    for path, node in nodes.items():
        if isinstance(node, File):
            assert names.get(entries[path].inode, b"") == b"".join(node.content.blocks())


@given(trees(), st.data())
def test_a_damaged_archive_never_breaks_the_reader(
    nodes: dict[bytes, Node], data: st.DataObject
) -> None:
    archive = bytearray(written(tree_of(nodes)))
    at = data.draw(st.integers(0, len(archive) - 1))
    archive[at] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(archive)))
    for broken in (bytes(archive), bytes(archive[:cut])):
        problem = outcome(broken)
        assert problem is None or problem.message.startswith("ramdisk at offset ")


def record(name: bytes, mode: int, data: bytes = b"", /, **changes: int) -> bytes:
    numbers = {
        "inode": 1,
        "mode": mode,
        "uid": 0,
        "gid": 0,
        "links": 1,
        "mtime": 0,
        "size": len(data),
        "major": 0,
        "minor": 0,
        "rmajor": 0,
        "rminor": 0,
        "name": len(name) + 1,
        "check": 0,
    } | changes
    head = b"070701" + b"".join(b"%08x" % number for number in numbers.values()) + name + b"\0"
    head += bytes(-len(head) % 4)
    return head + data + bytes(-len(data) % 4)


END = record(b"TRAILER!!!", 0)


@pytest.mark.parametrize(
    ("archive", "problem"),
    [
        (b"070702" + END[6:], "not an uncompressed `newc` header"),
        (END[:20], "ends inside"),
        (END[:6] + b"zzzzzzzz" + END[14:], "not hexadecimal"),
        (END[:6] + b"+0000001" + END[14:], "not hexadecimal"),
        (record(b"/etc", 0o40755) + END, "absolute path"),
        (record(b"../x", 0o100644) + END, "`..` part"),
        (record(b"a//b", 0o100644) + END, "empty"),
        (record(b"a/b", 0o100644) + END, "lies in no folder"),
        (record(b"a", 0o100644) + record(b"a/b", 0o100644) + END, "lies in no folder"),
        (record(b"a", 0o120777, b"/") + record(b"a/b", 0o100644) + END, "lies in no folder"),
        (record(b"a", 0o100644) + record(b"a", 0o100644) + END, "twice"),
        (record(b"n", 0o020644) + END, "device node"),
        (record(b"n", 0o060644) + END, "device node"),
        (record(b"n", 0o010644) + END, "pipe"),
        (record(b"n", 0o140644) + END, "socket"),
        (record(b"d", 0o40755, b"x") + END, "folder with contents"),
        (record(b"l", 0o120777) + END, "without a proper target"),
        (record(b"a", 0o100644, size=0xFFFFFFFF) + END, "ends inside"),
        (record(b"a", 0o100644, name=0xFFFFFFFF) + END, "a name of 4294967295 bytes"),
        (record(b"a", 0o100644, name=1) + END, "a name of 1 bytes"),
        (record(b"a\0b", 0o100644) + END, "does not end where"),
        (record(b"a", 0o100644), "ends inside"),
        (END + b"x", "after the trailer"),
        (END + END, "after the trailer"),
        (END + bytes(512), "after the trailer"),
        (record(b"a", 0o100644, b"x")[:-1] + b"!" + END, "padding"),
    ],
)
def test_a_hostile_archive_is_refused(archive: bytes, problem: str) -> None:
    with pytest.raises(MalformedImage, match=problem):
        cpio.read(archive)


def test_a_proper_archive_by_hand_is_read() -> None:
    """The twin of the test above, in the spelling of another writer."""
    archive = record(b".", 0o40755) + record(b"a", 0o40755) + record(b"a/b", 0o104755, b"x") + END
    assert [entry.path for entry in cpio.read(archive + bytes(100))] == [b"a", b"a/b"]


def test_the_name_that_ends_an_archive_is_refused_at_the_top_alone() -> None:
    """The reader would take it for the end, and drop what follows."""
    tree = Tree()
    tree.put(b"d", Directory(mode=0o755))
    tree.put(b"d/TRAILER!!!", File(mode=0o644, content=Bytes(b"x")))
    assert [entry.path for entry in cpio.read(written(tree))] == [b"d", b"d/TRAILER!!!"]
    tree.put(b"TRAILER!!!", File(mode=0o644, content=Bytes(b"x")))
    with pytest.raises(MalformedImage, match="ends an archive"):
        written(tree)


def test_a_size_that_does_not_fit_are_refused() -> None:
    class Huge(Bytes):
        @property
        def size(self) -> int:
            return 1 << 32

    tree = Tree()
    tree.put(b"huge", File(mode=0o644, content=Huge(b"")))
    with pytest.raises(MalformedImage, match="4 GiB"):
        Ramdisk.of(tree)


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_the_tool_everybody_has_reads_it(tmp_path: pathlib.Path) -> None:
    tree = Tree()
    tree.put(b"d", Directory(mode=0o750))
    shared = File(mode=0o4755, content=Bytes(b"content"))
    tree.put(b"d/one", shared)
    tree.put(b"d/two", shared)
    tree.put(b"link", Symlink(mode=0o777, target=b"d/one"))
    subprocess.run(
        ["cpio", "-id", "--quiet"], input=written(tree), cwd=tmp_path, check=True, timeout=20
    )
    assert (tmp_path / "link").read_bytes() == b"content"
    assert (tmp_path / "d" / "one").samefile(tmp_path / "d" / "two")
    assert (tmp_path / "d" / "two").read_bytes() == b"content"
    assert (tmp_path / "d" / "one").stat().st_mode & 0o777 == 0o755
