"""Fixtures for pytest, which finds them by itself where ``cloister`` is installed.

- ``cloister_enclave``: a :class:`cloister.testing.SimulatedEnclave` of the test's own, so that a
  test may do to it what it likes.
- ``shared_cloister_enclave``: one for the whole session, for tests that leave it as it is.
- ``make_cloister_enclave``: makes further ones, which end with the test. It takes neither of the
  two below, its arguments alone.
- ``cloister_app``: what is behind the first two. Override it in your ``conftest.py``.
- ``cloister_settings``: their other arguments of ``SimulatedEnclave``. Override it, too.

Every run of pytest imports this module, so it imports nothing until a fixture is asked for.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from cloister.testing import Asgi, SimulatedEnclave


class MakeEnclave(Protocol):
    """What ``make_cloister_enclave`` is: the arguments of ``SimulatedEnclave`` to a running one."""

    def __call__(self, app: "Asgi | str | None" = None, **settings: Any) -> "SimulatedEnclave":  # noqa: ANN401 - as the class has them
        """Starts an enclave."""


@pytest.fixture(scope="session")
def cloister_app() -> "Asgi | str | None":
    """The application behind enclaves: ASGI, ``HOST:PORT``, ``unix:PATH``; ``None`` for an echo."""
    return None


@pytest.fixture(scope="session")
def cloister_settings() -> Mapping[str, Any]:
    """Other arguments of :class:`cloister.testing.SimulatedEnclave`, by name."""
    return {}


@pytest.fixture
def cloister_enclave(
    cloister_app: "Asgi | str | None", cloister_settings: Mapping[str, Any]
) -> "Iterator[SimulatedEnclave]":
    """An enclave of this test alone."""
    with _enclave(cloister_app, cloister_settings) as running:
        yield running


@pytest.fixture(scope="session")
def shared_cloister_enclave(
    cloister_app: "Asgi | str | None", cloister_settings: Mapping[str, Any]
) -> "Iterator[SimulatedEnclave]":
    """An enclave of all tests of a session (of a worker, under xdist)."""
    with _enclave(cloister_app, cloister_settings) as running:
        yield running


@pytest.fixture
def make_cloister_enclave() -> Iterator[MakeEnclave]:
    """Starts enclaves of the arguments it is given, and ends them after the test.

    ``cloister_app`` and ``cloister_settings`` have no say in them.
    """
    with contextlib.ExitStack() as running:

        def make(app: "Asgi | str | None" = None, **settings: Any) -> "SimulatedEnclave":  # noqa: ANN401 - as the class has them
            return running.enter_context(_enclave(app, settings))

        yield make


def _enclave(app: "Asgi | str | None", settings: Mapping[str, Any]) -> "SimulatedEnclave":
    from cloister.testing import SimulatedEnclave  # noqa: PLC0415 - a run that asks for none is not slowed down

    return SimulatedEnclave(app, **settings)
