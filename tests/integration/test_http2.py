"""HTTP/2 to clients, with clients that nobody here wrote: curl, httpx, nghttp and h2load.

The user process speaks HTTP/1. What a hostile client may try is in
``tests/security/test_t01_http2_downgrade.py`` and ``test_t03_http2_abuse.py``.
"""

import asyncio
import base64
import datetime as dt
import itertools
import json
import pathlib
import re
import secrets
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from tests.support.application import wait_until
from tests.support.bulk import body_of, bulk_process, clear_blocks
from tests.support.dev_process import dev_process
from tests.support.exchanges import Received
from tests.support.raw_http2 import INTERNAL_ERROR, NO_ERROR, RawHttp2, get, reset
from tests.support.recording_process import RecordingProcess, Reply, echo, ok, recording

from cloister import crypto
from cloister.dev import ApiKey, DataPlane

MIB = 1 << 20
CONTEXT = re.compile(r"^[0-9A-F]{32}$")


@pytest.fixture
def process() -> Iterator[RecordingProcess]:
    with recording() as running:
        yield running


@pytest.fixture
def plane(process: RecordingProcess) -> Iterator[DataPlane]:
    with DataPlane(process.address) as running:
        yield running


def curl(plane: DataPlane, path: str, *words: str, key: str | None = None) -> tuple[str, bytes]:
    """Heads and body of what curl is answered over HTTP/2."""
    command = ["curl", "-sS", "-i", "--http2", "--cacert", str(plane.ca_file), "--max-time", "20"]
    command += ["-H", f"api-key: {plane.api_key if key is None else key}"]
    done = subprocess.run([*command, *words, plane.url + path], capture_output=True, check=True)
    heads, body = b"", done.stdout
    while body.startswith(b"HTTP/"):
        head, _, body = body.partition(b"\r\n\r\n")
        heads += head + b"\r\n"
    assert heads.startswith(b"HTTP/2 ")
    return heads.decode("latin-1"), body


def client_of(plane: DataPlane) -> httpx.Client:
    """httpx, with HTTP/2 alone."""
    context = ssl.create_default_context(cafile=str(plane.ca_file))
    return httpx.Client(
        http1=False,
        http2=True,
        verify=context,
        base_url=plane.url,
        headers={"api-key": plane.api_key},
        timeout=20,
    )


def raw(plane: DataPlane) -> RawHttp2:
    return RawHttp2(plane.address, plane.ca_file)


def answered(client: RawHttp2, plane: DataPlane, path: bytes = b"/") -> int | None:
    """Status of one request."""
    return client.answer(client.ask(get(plane.api_key, path))).status


def test_curl_gets_heads_and_posts(plane: DataPlane, process: RecordingProcess) -> None:
    head, body = curl(plane, "/hello?a=b")
    assert head.startswith("HTTP/2 200")
    assert body == b"you asked for /hello?a=b"
    context = re.search(r"x-evervault-ctx: (\w+)", head)
    assert context
    assert CONTEXT.match(context[1])
    first = process.received[0].raw
    assert b"x-evervault-ctx: " + context[1].encode() in first
    assert plane.api_key.encode() not in first
    head, body = curl(plane, "/hello", "--head")
    assert head.startswith("HTTP/2 200")
    assert "content-length: 20" in head
    assert body == b""
    value = crypto.encrypt("Ä 1", plane.app_public_key)
    curl(plane, "/in", "--json", json.dumps({"card": value}))
    assert process.received[-1].raw.endswith('\r\n\r\n{"card": "Ä 1"}'.encode())
    assert plane.stats()["fields_opened"] == 1


def test_every_refusal_is_json_with_a_context_id(process: RecordingProcess) -> None:
    uuid = "0d5a2a8e-6a51-4f3b-bf0f-4d8c3f0a9e33"
    this, other = (f"ck_{name}_{secrets.token_urlsafe(32)}" for name in ("this", "other"))
    keys = [
        ApiKey(value=this, scopes=(f"enclave:{uuid}",)),
        ApiKey(value=other, scopes=("enclave:11111111-6a51-4f3b-bf0f-4d8c3f0a9e33",)),
    ]
    # nghttp2 sends no head over 64 KiB, so the limits are lower here.
    limits = {"max_body": 100_000, "upstream_response": 1000, "head": 20_000, "target": 8000}
    config = {"uuid": uuid, "limits": limits}
    process.script = lambda request: (
        Reply(pieces=(b"", b""), pause_s=5) if request.target == b"/never" else echo(request)
    )
    with DataPlane(process.address, config=config, api_keys=keys) as plane:
        plain = ("-H", "content-type: application/json")
        token = crypto.encrypt("a", plane.app_public_key)
        wrong = token[:-8] + ("A" if token[-8] != "A" else "B") + token[-7:]
        cases: list[tuple[int, str | None, str, tuple[str, ...]]] = [
            (401, "ck_wrong_" + "a" * 43, "/", ()),
            (403, other, "/", ()),
            (413, None, "/", (*plain, "-d", "x" * 100_001)),
            (422, None, "/", (*plain, "-d", json.dumps(wrong))),
            (431, None, "/", ("-H", "x-a: " + "y" * 21_000)),
            (414, None, "/" + "p" * 9000, ()),
            (504, None, "/never", ()),
        ]
        for status, key, path, words in cases:
            head, body = curl(plane, path, *words, key=key)
            assert head.startswith(f"HTTP/2 {status}"), head
            assert "content-type: application/json" in head
            assert re.search(r"x-evervault-ctx: [0-9A-F]{32}\r\n", head), head
            assert list(json.loads(body)) == ["message"]
        command = ["curl", "-sS", "--http2", "--cacert", str(plane.ca_file), plane.url]
        missing = subprocess.run(command, capture_output=True, check=True).stdout
        assert json.loads(missing) == {"message": "No api-key header present on request"}
    assert [request.target for request in process.received] == [b"/never"]


def test_the_attestation_endpoint_takes_a_nonce(
    plane: DataPlane, process: RecordingProcess
) -> None:
    nonce = secrets.token_bytes(24)
    query = base64.urlsafe_b64encode(nonce).decode()
    head, body = curl(plane, f"/.well-known/attestation?nonce={query}", key="")
    assert head.startswith("HTTP/2 200")
    document = base64.b64decode(json.loads(body)["attestation_doc"])
    assert nonce in document
    assert not process.received


def test_continue_is_said_over_http2(plane: DataPlane, process: RecordingProcess) -> None:
    head, _ = curl(plane, "/in", "-H", "Expect: 100-continue", "--data-binary", "x" * 5000)
    assert re.findall(r"^HTTP/2 (\d+)", head, re.MULTILINE) == ["100", "200"]
    assert process.received[0].raw.endswith(b"\r\n\r\n" + b"x" * 5000)
    # Who is refused is not asked for the body.
    head, _ = curl(plane, "/in", "-H", "Expect: 100-continue", "-d", "x" * 5000, key="wrong")
    assert re.findall(r"^HTTP/2 (\d+)", head, re.MULTILINE) == ["401"]


def test_hints_trailers_and_answers_without_a_body(
    plane: DataPlane, process: RecordingProcess
) -> None:
    replies = {
        b"/hints": b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
        b"/trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        b"3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n",
        b"/none": b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
        b"/same": b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nContent-Length: 9\r\n\r\n',
    }
    process.script = lambda request: Reply(pieces=(replies[request.target],))
    head, body = curl(plane, "/hints")
    assert re.findall(r"^HTTP/2 (\d+)", head, re.MULTILINE) == ["103", "200"]
    assert "link: </s.css>" in head
    assert body == b"a"
    # curl shows trailers behind the body when asked for heads on their own.
    _, body = curl(plane, "/trailers")
    assert body.startswith(b"abc")
    assert b"x-sum: 6" in body
    head, body = curl(plane, "/none")
    assert head.startswith("HTTP/2 204")
    assert "content-length" not in head
    assert body == b""
    head, body = curl(plane, "/same")
    assert head.startswith("HTTP/2 304")
    assert 'etag: "1"' in head
    assert body == b""


def test_httpx_has_many_requests_on_one_connection(
    plane: DataPlane, process: RecordingProcess
) -> None:
    process.script = lambda request: ok(request.target + b" \xe9", b"X-Raw: \xe9\xff")

    async def ask() -> list[httpx.Response]:
        # Not with threads: httpcore lets two of them send new streams in the wrong order (RFC 9113
        # §5.1.1 makes that the end of a connection).
        context = ssl.create_default_context(cafile=str(plane.ca_file))
        headers = {"api-key": plane.api_key}
        async with httpx.AsyncClient(
            http1=False, http2=True, verify=context, base_url=plane.url, headers=headers, timeout=20
        ) as client:
            assert (await client.get("/first")).http_version == "HTTP/2"
            return list(await asyncio.gather(*(client.get(f"/{n}") for n in range(200))))

    answers = asyncio.run(ask())
    assert plane.stats()["connections"] == 1
    with client_of(plane) as client:
        assert [answer.content for answer in answers] == [b"/%d \xe9" % n for n in range(200)]
        assert {dict(answer.headers.raw)[b"x-raw"] for answer in answers} == {b"\xe9\xff"}
        contexts = {answer.headers["x-evervault-ctx"] for answer in answers}
        assert len(contexts) == 200
        client.cookies.set("a", "1")
        client.cookies.set("b", "2")
        client.get("/cookies")
        assert re.search(rb"\r\ncookie: a=1; b=2\r\n", process.received[-1].raw)


@pytest.mark.skipif(shutil.which("h2load") is None, reason="nghttp2-client is not installed")
def test_h2load_has_every_request_answered(
    plane: DataPlane, process: RecordingProcess, tmp_path: pathlib.Path
) -> None:
    command = ["h2load", "-n", "5000", "-c", "4", "-m", "32", "-H", f"api-key: {plane.api_key}"]
    url = f"https://{plane.address}/load"
    shown = subprocess.run([*command, url], capture_output=True, check=True, text=True).stdout
    assert "5000 total, 5000 started, 5000 done, 5000 succeeded, 0 failed, 0 errored" in shown
    assert "5000 2xx, 0 3xx, 0 4xx, 0 5xx" in shown
    assert "Application protocol: h2" in shown
    assert len(process.received) == 5000
    body = secrets.token_bytes(20_000)
    (tmp_path / "body").write_bytes(body)
    command += ["-n", "1000", "-d", str(tmp_path / "body"), "-H", "content-type: image/png", url]
    posted = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert "1000 succeeded, 0 failed" in posted
    assert len(process.received) == 6000
    assert all(request.raw.endswith(body) for request in process.received[5000:])


@pytest.mark.skipif(shutil.which("nghttp") is None, reason="nghttp2-client is not installed")
def test_nghttp_finds_no_fault(plane: DataPlane, process: RecordingProcess) -> None:
    process.script = lambda request: ok(b"z" * 300_000, b"X-Target: " + request.target)
    urls = [f"https://{plane.address}/{number}" for number in range(20)]
    command = ["nghttp", "-v", "-n", "-H", f"api-key: {plane.api_key}", "--no-dep", *urls]
    shown = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert len(re.findall(r":status: 200", shown)) == 20
    assert set(re.findall(r"x-target: /(\d+)", shown)) == {str(number) for number in range(20)}
    assert "recv RST_STREAM" not in shown
    assert "SETTINGS_ENABLE_CONNECT_PROTOCOL" in shown or "UNKNOWN(0x08):1" in shown
    # It announces the end itself; nothing else ends the connection.
    assert "recv GOAWAY" not in shown


def test_large_bodies_both_ways_in_little_memory(
    tmp_path: pathlib.Path, record: Callable[[str], None]
) -> None:
    count = 1024  # blocks of 256 KiB
    with (
        bulk_process() as process,
        dev_process(process.address, tmp_path) as plane,
    ):
        command = ["curl", "-sS", "--fail", "--http2", "--cacert", plane.ca_file]
        command += ["-H", f"api-key: {plane.key}", "--max-time", "100"]

        def warmed() -> int:
            subprocess.run([*command, f"{plane.url}/download/8"], capture_output=True, check=True)
            plane.forget_peak()
            return plane.memory()

        before = warmed()
        expected = sum(len(piece) for piece in body_of(clear_blocks(), count))
        target = tmp_path / "down"
        subprocess.run([*command, "-o", str(target), f"{plane.url}/download/{count}"], check=True)
        assert target.stat().st_size == expected
        down = plane.memory("VmHWM") - before
        target.write_bytes(b"".join(body_of(clear_blocks(), count)))
        before = warmed()
        send = ["-H", "content-type: application/json", "-T", str(target), "-X", "POST"]
        done = subprocess.run(
            [*command, *send, f"{plane.url}/upload/{count}"], capture_output=True, check=True
        )
        up = plane.memory("VmHWM") - before
        result = json.loads(done.stdout)
        assert result == {"received": expected, "equal": expected, "whole": True}
        record(f"{expected / MIB:.0f} MiB: {down / MIB:.1f} MiB down, {up / MIB:.1f} MiB up")
        assert max(down, up) < 16 * MIB


def test_events_are_not_held_back(plane: DataPlane, process: RecordingProcess) -> None:
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    event = b"9\r\ndata: x\n\n\r\n"
    process.script = lambda _request: Reply(pieces=(head, *[event] * 5, b"0\r\n\r\n"), pause_s=0.4)
    with client_of(plane) as client, client.stream("GET", "/events") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        begun = time.monotonic()
        times = []
        for piece in answer.iter_raw():
            assert piece == b"data: x\n\n"
            times.append(time.monotonic() - begun)
        assert len(times) == 5
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert min(gaps) > 0.2


def late(seconds: float) -> Reply:
    """An answer after so many seconds."""
    return Reply(pieces=(b"", *ok(b"late").pieces), pause_s=seconds)


def _script(request: Received) -> Reply:
    return late(1.5) if request.target.startswith(b"/late") else echo(request)


def test_a_drain_says_goaway_and_lets_what_is_in_flight_finish(
    plane: DataPlane, process: RecordingProcess
) -> None:
    process.script = _script
    with raw(plane) as client, raw(plane) as idle:
        assert answered(idle, plane) == 200
        number = client.ask(get(plane.api_key, b"/late"))
        wait_until(lambda: len(process.received) == 2)
        draining = threading.Thread(target=plane.drain, args=(dt.timedelta(seconds=20),))
        draining.start()
        assert client.wait(lambda: client.goaway is not None, 5)
        assert client.goaway == NO_ERROR
        assert not client.streams[number].is_done
        assert idle.wait(lambda: idle.is_closed, 5)
        assert idle.goaway == NO_ERROR
        stream = client.answer(number)
        assert stream.status == 200
        assert stream.answers[-1].body == b"late"
        assert client.wait(lambda: client.is_closed, 5)
        draining.join(10)
        assert not draining.is_alive()


def test_an_idle_connection_is_ended_and_a_busy_one_is_not(process: RecordingProcess) -> None:
    process.script = _script
    config = {"limits": {"keepalive_idle": 700}}
    with DataPlane(process.address, config=config) as plane, raw(plane) as client:
        assert answered(client, plane, b"/late") == 200
        assert client.goaway is None
        begun = time.monotonic()
        assert client.wait(lambda: client.is_closed, 5)
        assert client.goaway == NO_ERROR
        assert 0.5 < time.monotonic() - begun < 3


def test_a_process_that_dies_resets_its_stream_and_no_other(
    plane: DataPlane, process: RecordingProcess
) -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
    process.script = lambda request: (
        Reply(pieces=(half, b""), then="reset", pause_s=0.2)
        if request.target == b"/dies"
        else _script(request)
    )
    with raw(plane) as client:
        other = client.ask(get(plane.api_key, b"/late"))
        dies = client.ask(get(plane.api_key, b"/dies"))
        stream = client.answer(dies)
        assert stream.status == 200
        assert bytes(stream.body) == b"half"
        assert stream.reset == INTERNAL_ERROR
        assert not client.streams[other].is_done
        assert client.answer(other).answers[-1].body == b"late"
        assert answered(client, plane) == 200


def test_a_pooled_connection_that_went_stale_is_replaced(
    plane: DataPlane, process: RecordingProcess
) -> None:
    with raw(plane) as client:
        for _ in range(20):
            assert answered(client, plane) == 200
            process.hang_up()
    assert len(process.received) == 20


def test_the_log_has_a_record_of_each(process: RecordingProcess, tmp_path: pathlib.Path) -> None:
    logs = tmp_path / "trx.ndjson"
    with DataPlane(process.address, logs=logs) as plane:
        head, body = curl(plane, "/a?secret=1", "-H", "content-type: image/png", "-d", "12345")
        curl(plane, "/b", key="wrong")
        curl(plane, "/.well-known/attestation")
        plane.drain(dt.timedelta(seconds=5))
    records = [json.loads(line) for line in logs.read_text().splitlines()]
    assert [record["responseCode"] for record in records] == ["200", "401"] or [
        record["responseCode"] for record in records
    ] == [200, 401]
    first = records[0]
    assert first["txid"] in head
    assert first["requestType"] == "HTTP"
    assert first["requestMethod"] == "POST"
    assert first["uri"].startswith("/a")
    assert first["bytesIn"] == 5
    # With the head.
    assert len(body) < first["bytesOut"] < len(body) + 200
    assert "secret=1" not in logs.read_text()


def test_a_client_that_gives_up_lets_the_process_know(
    plane: DataPlane, process: RecordingProcess
) -> None:
    process.script = lambda request: late(10) if request.target == b"/slow" else echo(request)
    with raw(plane) as client:
        number = client.ask(get(plane.api_key, b"/slow"))
        wait_until(lambda: len(process.received) == 1)
        assert len(process.open) == 1
        client.send(reset(number))
        wait_until(lambda: not process.open, 3)
        assert answered(client, plane) == 200
