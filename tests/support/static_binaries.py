"""The static programs that tests start, as `make static` and `make fixtures` leave them."""

import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def _program(path: pathlib.Path, target: str) -> pathlib.Path:
    if not path.is_file():
        pytest.fail(f"{path.relative_to(ROOT)} is missing: run `make {target}`")
    return path


def launcher() -> pathlib.Path:
    """cloister-sandbox."""
    return _program(ROOT / "python/cloister/_bin/cloister-sandbox", "static")


def fixture(name: str) -> pathlib.Path:
    """fixture-init or fixture-probe."""
    return _program(ROOT / "tests/support/_bin" / name, "fixtures")


def user_for_tests() -> int | None:
    """An ordinary user to become, when the tests run as root; else whoever runs them."""
    return 54321 if os.getuid() == 0 else None
