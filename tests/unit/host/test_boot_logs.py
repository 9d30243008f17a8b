"""Folders of logs, one for each boot."""

import datetime as dt
import pathlib
import stat

import pytest

from cloister.errors import OutputError
from cloister.host import logs
from cloister.host.boot_logs import new_folder

NOW = dt.datetime(2026, 11, 28, 1, 2, 3, 4, tzinfo=dt.UTC)


def made(root: pathlib.Path, count: int, **limits: int) -> list[pathlib.Path]:
    folders = []
    for number in range(count):
        folder = new_folder(root, now=NOW + dt.timedelta(seconds=number), **limits)
        (folder / "0000000001.ndjson").write_text(f'{{"segment":1}}\n{{"number":{number}}}\n')
        folders.append(folder)
    return folders


def test_folders_are_private_and_in_the_order_of_their_boots(tmp_path: pathlib.Path) -> None:
    folders = made(tmp_path / "logs", 3)
    assert sorted(folders) == folders
    assert {stat.S_IMODE(one.stat().st_mode) for one in folders} == {0o700}
    assert [one["number"] for one in logs.records(tmp_path / "logs")] == [0, 1, 2]


def test_two_boots_in_one_moment_have_two_folders(tmp_path: pathlib.Path) -> None:
    assert new_folder(tmp_path, now=NOW) != new_folder(tmp_path, now=NOW)


def test_the_oldest_boots_make_room_by_number_and_by_size(tmp_path: pathlib.Path) -> None:
    made(tmp_path / "number", 6, max_boots=4)
    assert [one["number"] for one in logs.records(tmp_path / "number")] == [2, 3, 4, 5]
    made(tmp_path / "size", 6, max_bytes=1)
    # Three may still be written, and the new one.
    assert [one["number"] for one in logs.records(tmp_path / "size")] == [2, 3, 4, 5]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot make"):
        new_folder(tmp_path / "file" / "logs", now=NOW)
