"""What holds for every test."""

import signal
from collections.abc import Callable

import pytest


def pytest_configure() -> None:
    """Lets programs under test hear Ctrl-C, also when the tests run in the background.

    A shell starts what runs in the background with SIGINT ignored, and programs pass that on.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def record(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints a figure where whoever runs the tests sees it."""

    def show(line: str) -> None:
        with capsys.disabled():
            print(f"\n  {line}")  # noqa: T201

    return show
