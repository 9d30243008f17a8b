"""Folders of logs, one for each boot."""

import pathlib
import stat

import pytest

from cloister.errors import OutputError
from cloister.host import logs
from cloister.host.boot_logs import BootLogs


def boot(kept: BootLogs, number: int, *, goes_on: bool = False) -> pathlib.Path:
    """A boot that logged its number."""
    folder = kept.new()
    (folder / "0000000001.ndjson").write_text(f'{{"segment":1}}\n{{"number":{number}}}\n')
    if not goes_on:
        kept.release(folder)
    return folder


def numbers(root: pathlib.Path) -> list[int]:
    return [one["number"] for one in logs.records(root)]


def test_folders_are_private_and_in_the_order_of_their_boots(tmp_path: pathlib.Path) -> None:
    kept = BootLogs(tmp_path / "logs")
    folders = [boot(kept, number) for number in range(12)]
    assert {stat.S_IMODE(one.stat().st_mode) for one in folders} == {0o700}
    assert numbers(tmp_path / "logs") == list(range(12))
    assert boot(BootLogs(tmp_path / "logs"), 12).name > folders[-1].name


def test_the_oldest_boots_make_room_by_number_and_by_size(tmp_path: pathlib.Path) -> None:
    by_number = BootLogs(tmp_path / "number", max_boots=4)
    by_size = BootLogs(tmp_path / "size", max_bytes=1)
    for number in range(6):
        boot(by_number, number)
        boot(by_size, number)
    assert numbers(tmp_path / "number") == [2, 3, 4, 5]
    assert numbers(tmp_path / "size") == [5]


def test_a_boot_that_goes_on_keeps_its_folder(tmp_path: pathlib.Path) -> None:
    kept = BootLogs(tmp_path, max_boots=3, max_bytes=1)
    running = boot(kept, 0, goes_on=True)
    for number in range(1, 20):
        boot(kept, number)
    assert numbers(tmp_path) == [0, 19]
    kept.release(running)
    boot(kept, 20)
    assert numbers(tmp_path) == [20]


def test_a_start_that_failed_leaves_no_folder(tmp_path: pathlib.Path) -> None:
    kept = BootLogs(tmp_path)
    boot(kept, 0)
    for _ in range(20):
        kept.release(kept.new())
    assert numbers(tmp_path) == [0]
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_not_ours_stays(tmp_path: pathlib.Path) -> None:
    (tmp_path / "notes").mkdir()
    kept = BootLogs(tmp_path, max_boots=1, max_bytes=1)
    for number in range(3):
        boot(kept, number)
    assert (tmp_path / "notes").is_dir()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot make"):
        BootLogs(tmp_path / "file" / "logs").new()
