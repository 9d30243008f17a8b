"""Text of the command line that becomes types."""

import datetime as dt

import pytest
import typer

from cloister.cli import params
from cloister.errors import UsageError

LAST = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)


def test_a_moment_is_in_the_calendar_in_utc() -> None:
    assert params.moment("9999-12-31T23:59:59Z") == LAST
    assert params.moment("9999-12-31T00:59:59-23:00") == LAST
    for text in ("9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+01:00", "@1e300"):
        with pytest.raises(typer.BadParameter, match="expected a time as"):
            params.moment(text)


NOW = dt.datetime(2026, 5, 4, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90d", NOW + dt.timedelta(days=90)),
        (" 15m ", NOW + dt.timedelta(minutes=15)),
        ("2026-12-31T00:00:00Z", dt.datetime(2026, 12, 31, tzinfo=dt.UTC)),
        ("@1798675200", dt.datetime(2026, 12, 31, tzinfo=dt.UTC)),
    ],
)
def test_an_end_is_a_length_of_time_or_a_time(text: str, expected: dt.datetime) -> None:
    assert params.end(text, now=NOW, option="--until") == expected


@pytest.mark.parametrize(
    "text", ["nope", "1x", "", "90", "-1d", "d", "2026-13-01T00:00:00Z", "\uff190d"]
)
def test_what_is_neither_is_told_both(text: str) -> None:
    with pytest.raises(typer.BadParameter) as caught:
        params.end(text, now=NOW, option="--until")
    assert "a length of time as 90d" in caught.value.message
    assert "or a time as 2026-12-31T00:00:00Z" in caught.value.message
    assert "--until" in caught.value.format_message()


def test_an_end_has_a_zone_and_is_in_the_calendar() -> None:
    with pytest.raises(typer.BadParameter, match="no zone"):
        params.end("2026-12-31T00:00:00", now=NOW, option="--until")
    with pytest.raises(UsageError, match="--until: after the end of time"):
        params.end("999999999d", now=NOW, option="--until")


def test_a_moment_has_a_zone() -> None:
    assert params.moment("2026-01-31T12:00:00+01:00").utcoffset() == dt.timedelta(0)
    with pytest.raises(typer.BadParameter, match="no zone"):
        params.moment("2026-01-31T12:00:00")
