"""Every room of tests is run: the runner leaves out folders by their names, without a word."""

import fnmatch
import pathlib

import pytest

TESTS = pathlib.Path(__file__).parents[1]


def test_no_folder_of_tests_is_left_out(pytestconfig: pytest.Config) -> None:
    patterns = pytestconfig.getini("norecursedirs")
    rooms = {parent for file in TESTS.rglob("test_*.py") for parent in file.parents} - {
        *TESTS.parents
    }
    assert TESTS / "unit" / "build" in rooms
    left_out = [room for room in rooms if any(fnmatch.fnmatch(room.name, p) for p in patterns)]
    assert left_out == []
