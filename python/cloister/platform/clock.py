"""The platform's time: a callable, so that a test can pass its own."""

import datetime as dt
from collections.abc import Callable

Clock = Callable[[], dt.datetime]
"""Gives the present moment, with its zone."""


def system() -> dt.datetime:
    """The system's clock, in UTC."""
    return dt.datetime.now(dt.UTC)


def to_ms(moment: dt.datetime) -> int:
    """Milliseconds since the Unix epoch, exactly."""
    return (moment - _EPOCH) // dt.timedelta(milliseconds=1)


def from_ms(value: int) -> dt.datetime:
    """The moment of a number of milliseconds since the Unix epoch."""
    return _EPOCH + dt.timedelta(milliseconds=value)


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
