"""The platform's time: a callable, so that a test can pass its own."""

import datetime as dt
from collections.abc import Callable

from cloister.moments import from_ms, to_ms

__all__ = ["Clock", "from_ms", "system", "to_ms"]

Clock = Callable[[], dt.datetime]
"""Gives the present moment, with its zone."""


def system() -> dt.datetime:
    """The system's clock, in UTC."""
    return dt.datetime.now(dt.UTC)
