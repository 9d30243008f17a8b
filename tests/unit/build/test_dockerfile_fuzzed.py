"""Dockerfiles that a fuzzer wrote, as ``fuzz/python/dockerfile.py`` found them."""

import pathlib

import pytest

from cloister.build.dockerfile import Options, run
from cloister.errors import MalformedImage


def test_a_zero_byte_is_named_with_its_line(tmp_path: pathlib.Path) -> None:
    """The system calls took it for a wrong argument."""
    file = tmp_path / "Dockerfile"
    (tmp_path / "app").write_bytes(b"program")
    file.write_text('FROM scratch\nCOPY app /app\nENTRYPOINT ["/app"]\n')
    assert run(file, tmp_path, Options()).tree.node(b"app") is not None
    file.write_text('FROM scratch\nCOPY a\0pp /app\nENTRYPOINT ["/app"]\n')
    with pytest.raises(MalformedImage, match=r"Dockerfile:2: a zero byte"):
        run(file, tmp_path, Options())


@pytest.mark.parametrize("name", ["n" * 300, "a/" * 3000 + "b"], ids=["long", "deep"])
def test_a_source_that_no_file_system_can_have_is_named_with_its_line(
    name: str, tmp_path: pathlib.Path
) -> None:
    """One is too long to look up, one is too deep."""
    (tmp_path / "Dockerfile").write_text(f"FROM scratch\nCOPY {name} /\n")
    with pytest.raises(MalformedImage, match=r"Dockerfile:2: `.*` (cannot be read|is not in)"):
        run(tmp_path / "Dockerfile", tmp_path, Options())


def test_a_pattern_below_plain_folders_finds_what_is_there(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    for name in ("a/b/x1", "a/b/c/x2", "a/b/c/y"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY a/b/x* a/*/c/x? /to/\n")
    tree = run(tmp_path / "Dockerfile", tmp_path, Options()).tree
    assert [path for path, _ in tree] == [b"to", b"to/x1", b"to/x2"]


def test_documents_that_go_nowhere_are_named_with_their_line(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("FROM scratch\nCOPY <<A <<B /to/\na\nA\nb\nB\n")
    assert len(run(file, tmp_path, Options()).tree) == 3
    file.write_text("FROM scratch\nCOPY <<A <<B\na\nA\nb\nB\n")
    with pytest.raises(MalformedImage, match=r"Dockerfile:2: COPY lacks a destination"):
        run(file, tmp_path, Options())
