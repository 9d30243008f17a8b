"""Text of the command line that becomes types."""

import datetime as dt

import pytest
import typer

from cloister.cli import params

LAST = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)


def test_a_moment_is_in_the_calendar_in_utc() -> None:
    assert params.moment("9999-12-31T23:59:59Z") == LAST
    assert params.moment("9999-12-31T00:59:59-23:00") == LAST
    for text in ("9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+01:00", "@1e300"):
        with pytest.raises(typer.BadParameter, match="expected a time as"):
            params.moment(text)


def test_a_moment_has_a_zone() -> None:
    assert params.moment("2026-01-31T12:00:00+01:00").utcoffset() == dt.timedelta(0)
    with pytest.raises(typer.BadParameter, match="no zone"):
        params.moment("2026-01-31T12:00:00")
