"""What holds for every test."""

import signal


def pytest_configure() -> None:
    """Lets programs under test hear Ctrl-C, also when the tests run in the background.

    A shell starts what runs in the background with SIGINT ignored, and programs pass that on.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
