"""Reading log segments while they are written."""

import json
import pathlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from cloister.host import logs


def record(sequence: int, **more: Any) -> dict[str, Any]:
    return {"sequence": sequence, "txid": f"{sequence:032X}", "ts": 1000 * sequence} | more


def segment(folder: pathlib.Path, number: int, *records: dict[str, Any]) -> pathlib.Path:
    path = folder / f"{number:010}.ndjson"
    append(path, {"segment": number, "boot": "0" * 32, "after": 0}, *records)
    return path


def append(path: pathlib.Path, *records: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(each) + "\n" for each in records)


def numbers(found: Iterator[dict[str, Any]]) -> list[int]:
    return [each["sequence"] for each in found]


def test_filters_exclude_what_does_not_fit_and_nothing_else(tmp_path: pathlib.Path) -> None:
    segment(
        tmp_path,
        1,
        record(1, responseCode=200, statusGroup="2XX"),
        record(2, responseCode=404, statusGroup="4XX"),
        record(3, responseCode=403, statusGroup="4XX"),
        record(4, responseCode=0, statusGroup="0XX"),
        {"sequence": 5},
    )

    def of(**wanted: Any) -> list[int]:
        return numbers(logs.records(tmp_path, logs.Wanted(**wanted)))

    assert of() == [1, 2, 3, 4, 5]
    assert of(ctx=f"{2:032x}") == [2]
    assert of(since_ms=2000, until_ms=4000) == [2, 3]
    assert of(statuses=frozenset({"404"})) == [2]
    assert of(statuses=frozenset({"4xx", "200"})) == [1, 2, 3]
    assert of(statuses=frozenset({"0xx"})) == [4]
    assert of(statuses=frozenset({"4xx"}), since_ms=3000) == [3]
    assert of(ctx="F" * 32) == []


def test_a_line_that_is_being_written_is_given_when_it_is_whole(tmp_path: pathlib.Path) -> None:
    path = segment(tmp_path, 1, record(1))
    text = json.dumps(record(2))
    with path.open("a") as file:
        file.write(text[:20])
    reader = logs._Reader(tmp_path, logs.EVERYTHING)
    assert numbers(reader.new()) == [1]
    assert numbers(reader.new()) == []
    with path.open("a") as file:
        file.write(text[20:] + "\n")
    assert numbers(reader.new()) == [2]


def test_a_torn_line_that_was_cut_off_is_not_given_twice(tmp_path: pathlib.Path) -> None:
    """What a killed writer left is cut off by the next one, which is sent the record again."""
    path = segment(tmp_path, 1, record(1))
    whole = path.stat().st_size
    reader = logs._Reader(tmp_path, logs.EVERYTHING)
    with path.open("a") as file:
        file.write(json.dumps(record(2))[:-5])
    assert numbers(reader.new()) == [1]
    with path.open("r+") as file:
        file.truncate(whole)
    append(path, record(2), record(3))
    assert numbers(reader.new()) == [2, 3]


def test_following_goes_on_from_segment_to_segment(tmp_path: pathlib.Path) -> None:
    """Also when the one that is read is removed as the oldest, and when several come at once."""
    stop, seen = threading.Event(), []
    first = segment(tmp_path, 7, record(1))

    def read() -> None:
        seen.extend(numbers(logs.follow(tmp_path, stop, from_start=True)))

    reading = threading.Thread(target=read)
    reading.start()
    append(first, record(2))
    second = segment(tmp_path, 8, record(3))
    time.sleep(2 * logs.POLL_S)  # so that it is read
    first.unlink()
    append(second, record(4))
    segment(tmp_path, 9, record(5))
    segment(tmp_path, 10, record(6))
    stop.set()
    reading.join()
    assert seen == [1, 2, 3, 4, 5, 6]


def test_what_is_no_record_is_passed_over(tmp_path: pathlib.Path) -> None:
    path = segment(tmp_path, 1, record(1))
    with path.open("ab") as file:
        file.write(b"\xff\xfe\n[1]\n" + b"[" * 100_000 + b"\n")
    append(path, record(2))
    (tmp_path / "notes.ndjson").write_text("x\n")
    assert numbers(logs.records(tmp_path)) == [1, 2]
