"""Moments as whole milliseconds, without the rounding of floating-point numbers."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import UsageError
from cloister.moments import from_ms, to_ms

LAST = dt.datetime.max.replace(tzinfo=dt.UTC)


@given(value=st.integers(min_value=-62_135_596_800_000, max_value=253_402_300_799_999))
def test_every_millisecond_of_the_calendar_comes_back(value: int) -> None:
    assert to_ms(from_ms(value)) == value


def test_a_part_of_a_millisecond_is_dropped() -> None:
    assert to_ms(LAST) == 253_402_300_799_999
    # As a floating-point number of seconds it is the next millisecond.
    assert round(LAST.timestamp() * 1000) == 253_402_300_800_000


def test_a_zone_says_which_moment_it_is() -> None:
    noon = dt.datetime(2030, 1, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=45)))
    assert to_ms(noon) == to_ms(dt.datetime(2030, 1, 1, 6, 15, tzinfo=dt.UTC))


def test_without_a_zone_it_is_refused() -> None:
    to_ms(dt.datetime(2030, 1, 1, tzinfo=dt.UTC))
    with pytest.raises(UsageError, match="`end` has no time zone"):
        to_ms(dt.datetime(2030, 1, 1), name="`end`")  # noqa: DTZ001 - what the test is about
