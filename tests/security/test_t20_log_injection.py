"""T-20: what a client puts into a path or a header cannot forge a log line or command a terminal.

Control characters in a request never get as far as a record (they are refused, T-01), so these are
the bytes that do: percent-encoded ones, C1 controls and other bytes above ASCII, quotes, lengths.
"""

import json
import pathlib
import re
from typing import Any

import pytest
from tests.support.application import wait_until
from tests.support.dev_process import dev_process
from tests.support.recording_process import ok, recording

SECRET = "s3cr3t-value"
HOSTILE: dict[str, bytes] = {
    "encoded-line-break": b"/a%0d%0a%7B%22txid%22:%22forged%22%7D",
    "quotes": b'/a"},{"txid":"forged","x":"',
    "backslashes": b"/a\\u000a\\\\\\",
    "c1-control-sequence": b"/a\x9b2J\x9d0;title\x9c",
    "c1-in-utf-8": b"/a\xc2\x9b2J",
    "broken-utf-8": b"/a\xff\xfe\xc3",
    "line-separator": b"/a\xe2\x80\xa8forged\xe2\x80\xa9",
    "next-line": b"/a\xc2\x85forged",
    "right-to-left": b"/a\xe2\x80\xaeforged",
    "very-long": b"/" + b"a" * 20_000,
    "query": b"/a?token=" + SECRET.encode(),
}
SENSITIVE = ("authorization", "cookie", "proxy-authorization", "x-own-secret")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], bytes, str]:
    """What was logged of each hostile path, once in the target and once in a header."""
    folder: pathlib.Path = tmp_path_factory.mktemp("t20")
    logs = folder / "trx.ndjson"
    answer = ok(b"", b"Set-Cookie: " + SECRET.encode(), b"X-Answer: \x9b2J\xff")
    trusted = 'trusted_headers = ["x-shown", "x-answer"]\n'
    with (
        recording(lambda _: answer) as process,
        dev_process(process.address, folder, "--logs", str(logs), top=trusted) as plane,
        plane.client() as client,
    ):
        for hostile in HOSTILE.values():
            value = hostile.removeprefix(b"/").partition(b"?")[0][:10_000]
            head = b"GET " + hostile + b" HTTP/1.1\r\nHost: a\r\napi-key: " + plane.key.encode()
            lines = [b"User-Agent: " + value, b"X-Shown: " + value]
            lines += [f"{name}: {SECRET}".encode() for name in SENSITIVE]
            request = b"\r\n".join([head, *lines]) + b"\r\n\r\n"
            assert client.ask(request).status == 200, hostile[:40]
        wait_until(lambda: logs.exists() and logs.read_bytes().count(b"\n") >= len(HOSTILE))
        key = plane.key
    raw = logs.read_bytes()
    return [json.loads(line) for line in raw.splitlines()], raw, key


def test_there_is_one_record_a_request_and_each_is_a_line(
    records: tuple[list[dict[str, Any]], bytes, str],
) -> None:
    found, raw, _ = records
    assert len(found) == len(HOSTILE)
    # str.splitlines() of Python, and terminals, know more line ends than a line feed.
    assert len(raw.decode().replace("\u2028", "?").replace("\u2029", "?").splitlines()) == len(
        found
    )
    assert [record["sequence"] for record in found] == list(range(1, len(found) + 1))
    assert all(re.fullmatch("[0-9A-F]{32}", record["txid"]) for record in found)


def test_no_byte_of_a_record_commands_a_terminal(
    records: tuple[list[dict[str, Any]], bytes, str],
) -> None:
    _, raw, _ = records
    # The test would see it: the same bytes unescaped are in what was sent.
    assert re.search(r"[\x00-\x1f\x7f-\x9f]", HOSTILE["c1-in-utf-8"].decode())
    text = raw.decode()
    assert not re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)


def test_what_was_asked_for_can_be_read_and_has_an_end(
    records: tuple[list[dict[str, Any]], bytes, str],
) -> None:
    found, _, _ = records
    uris = dict(zip(HOSTILE, (record["uri"] for record in found), strict=True))
    assert uris["encoded-line-break"] == HOSTILE["encoded-line-break"].decode()
    assert uris["quotes"] == HOSTILE["quotes"].decode()
    assert uris["backslashes"] == HOSTILE["backslashes"].decode()
    assert uris["c1-in-utf-8"] == "/a\u009b2J"
    assert uris["broken-utf-8"].startswith("/a\ufffd")
    assert len(uris["very-long"]) <= 1_100
    agents = [record["userAgent"] for record in found]
    assert all(len(agent) <= 1_100 for agent in agents)


def test_sensitive_values_are_in_no_record(
    records: tuple[list[dict[str, Any]], bytes, str],
) -> None:
    found, raw, key = records
    assert SECRET.encode() not in raw
    assert key.encode() not in raw
    for record in found:
        headers = {name.lower(): value for name, value in _pairs(record["requestHeaders"])}
        for name in (*SENSITIVE, "api-key"):
            assert headers.get(name, "***") == "***", name
        # The twin: what may be shown is.
        assert headers["x-shown"] != "***"
        assert headers["host"] == "a"


def _pairs(headers: Any) -> list[tuple[str, str]]:
    return list(headers.items()) if isinstance(headers, dict) else [tuple(h) for h in headers]
