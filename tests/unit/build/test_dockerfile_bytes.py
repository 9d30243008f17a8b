"""Bytes that no Dockerfile has a use for."""

import pathlib

import pytest

from cloister.build.dockerfile import Options, run
from cloister.errors import MalformedImage


def test_a_zero_byte_is_named_with_its_line(tmp_path: pathlib.Path) -> None:
    """Found by ``fuzz/python/dockerfile.py``: the system calls took it for a wrong argument."""
    file = tmp_path / "Dockerfile"
    (tmp_path / "app").write_bytes(b"program")
    file.write_text('FROM scratch\nCOPY app /app\nENTRYPOINT ["/app"]\n')
    assert run(file, tmp_path, Options()).tree.node(b"app") is not None
    file.write_text('FROM scratch\nCOPY a\0pp /app\nENTRYPOINT ["/app"]\n')
    with pytest.raises(MalformedImage, match=r"Dockerfile:2: a zero byte"):
        run(file, tmp_path, Options())
