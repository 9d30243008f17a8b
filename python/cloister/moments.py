"""Moments as whole milliseconds since the Unix epoch, as documents, keys and databases have them.

It reads no clock. A time without a zone is none: which moment it is depends on the machine.
"""

import datetime as dt

from cloister.errors import UsageError


def to_ms(moment: dt.datetime, *, name: str = "a time") -> int:
    """Milliseconds since the Unix epoch, exactly; a part of one is dropped.

    Args:
        moment: With its zone; before the epoch the number is negative.
        name: What the error calls it.

    Raises:
        UsageError: It has no time zone.
    """
    if moment.utcoffset() is None:
        raise UsageError(f"{name} has no time zone", hint="use datetime.now(datetime.UTC)")
    return (moment - _EPOCH) // dt.timedelta(milliseconds=1)


def from_ms(value: int) -> dt.datetime:
    """The moment of a number of milliseconds since the Unix epoch.

    Raises:
        OverflowError: It is beyond the calendar.
    """
    return _EPOCH + dt.timedelta(milliseconds=value)


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
