"""Fixtures of the platform's tests."""

import pathlib
from collections.abc import Iterator

import pytest
from tests.support.platform_world import World, make_world


@pytest.fixture
def world(tmp_path: pathlib.Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.database.close()
