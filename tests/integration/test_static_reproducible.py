"""What of a machine could be in the static binaries, and must not be.

The enclave binary is part of every measurement, so nothing of whoever built it may be in it: no
folder of the checkout, of cargo, of the toolchain or of a user. That two builds in different places
give the same bytes is a stronger statement, which takes two whole builds and is not made here.
"""

import os
import pathlib
import re

import pytest
from tests.support import static_binaries

PROGRAMS = ("cloister-enclave", "cloister-sandbox")
# A source below a folder that differs between machines. Only sources: string literals of a program
# lie next to each other without a gap, so "/tmp" and "/proc/keys" look like one path.
FOREIGN = re.compile(
    rb"/(?:home|root|work|builds?|github|tmp|Users)/[A-Za-z0-9._/+-]+\.(?:rs|c|h|S)(?![A-Za-z])"
)
RENAMED = re.compile(rb"/cargo/registry/src/[!-~]+\.rs")


def program(name: str) -> bytes:
    return static_binaries.launcher().with_name(name).read_bytes()


def places_of_this_machine() -> set[bytes]:
    home = pathlib.Path.home()
    named = [os.environ.get(name) for name in ("CARGO_HOME", "CARGO_TARGET_DIR", "RUSTUP_HOME")]
    found = [static_binaries.ROOT, home / ".cargo", home / ".rustup", *filter(None, named)]
    return {os.fsencode(path) for path in found}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_static_binary_names_no_folder_of_its_builder(name: str) -> None:
    contents = program(name)
    assert [place for place in places_of_this_machine() if place in contents] == []
    assert FOREIGN.findall(contents) == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_paths_of_sources_are_there_under_their_common_name(name: str) -> None:
    """Otherwise the search above would find nothing in a file that has no paths to find."""
    assert RENAMED.search(program(name))


def test_the_search_finds_a_folder_of_a_builder() -> None:
    """The pattern is tried on what a build without renaming leaves."""
    for path in (b"/home/ann/cloister/rust/init/src/main.rs", b"/root/.cargo/registry/a.rs"):
        assert FOREIGN.findall(b"\0" + path + b"\0") == [path]
