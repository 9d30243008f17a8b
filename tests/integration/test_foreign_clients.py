"""HTTP/1 with programs that nobody here wrote: curl, requests, httpx, wrk.

What is looked at is what they cannot do without: connections that are used again, bodies of unknown
length both ways, Expect, HEAD, interim responses, large headers, and load without one wrong answer.
WebSocket is in ``test_websocket.py``; slowhttptest and testssl are in ``tests/conformance``.
"""

import hashlib
import os
import pathlib
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator

import httpx
import pytest
import requests
from tests.support.dev_process import DevProcess, dev_process
from tests.support.exchanges import Received, joined
from tests.support.recording_process import RecordingProcess, Reply, ok, recording

SIZE = 3 << 20


def script(request: Received) -> Reply:
    """An application of a few pages."""
    head, _, body = joined(request.raw).partition(b"\r\n\r\n")
    sent = hashlib.sha256(body.partition(b"<end>")[0]).hexdigest().encode()
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    pages = {
        b"/hints": Reply(
            pieces=(
                b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n",
                *ok(b"after hints").pieces,
            )
        ),
        b"/chunks": Reply(
            pieces=(chunked, b"5\r\nhello\r\n", b"6\r\n world\r\n", b"0\r\nX-Sum: 11\r\n\r\n")
        ),
        b"/until-close": Reply(pieces=(b"HTTP/1.1 200 OK\r\n\r\n", b"to the end"), then="close"),
        b"/gone": Reply(
            pieces=(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",), then="close"
        ),
        b"/empty": Reply(pieces=(b"HTTP/1.1 204 No Content\r\n\r\n",)),
        b"/large": ok(b"z" * SIZE),
        b"/redirect": Reply(
            pieces=(b"HTTP/1.1 302 Found\r\nLocation: /here\r\nContent-Length: 0\r\n\r\n",)
        ),
    }
    if head.startswith(b"HEAD "):
        return Reply(pieces=(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n",))
    return pages.get(request.target, ok(sent))


@pytest.fixture(scope="module")
def process() -> Iterator[RecordingProcess]:
    with recording(script) as running:
        yield running


@pytest.fixture(scope="module")
def plane(
    process: RecordingProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DevProcess]:
    with dev_process(process.address, tmp_path_factory.mktemp("tools")) as running:
        yield running


def curl(plane: DevProcess, *arguments: str, data: bytes | None = None) -> str:
    """What curl prints; it fails the test when curl does."""
    command = ["curl", "-sS", "--http1.1", "--cacert", plane.ca_file, "--max-time", "20"]
    command += ["-H", f"api-key: {plane.key}", *arguments]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_curl_uses_one_connection_for_many_requests(plane: DevProcess) -> None:
    urls = [f"{plane.url}/{number}" for number in range(5)]
    told = curl(plane, "-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n", *_outputs(urls))
    assert told.split() == ["200", "1", *["200", "0"] * 4]


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_curl_uploads_with_a_length_and_without(
    plane: DevProcess, process: RecordingProcess, version: str, tmp_path: pathlib.Path
) -> None:
    content = os.urandom(SIZE)
    (tmp_path / "upload").write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    binary = ["-H", "content-type: application/octet-stream", version]
    assert curl(plane, *binary, "--data-binary", f"@{tmp_path}/upload", plane.url) == expected
    if version == "--http1.1":
        # Of standard input curl knows no length: it sends chunks, and asks with Expect first.
        assert curl(plane, *binary, "-T", "-", plane.url + "/put", data=content) == expected
        assert b"Transfer-Encoding: chunked\r\n" in process.received[-1].raw
        assert b"Expect" not in process.received[-1].raw


def test_curl_hears_100_before_it_sends(plane: DevProcess) -> None:
    command = ["curl", "-sS", "-v", "--http1.1", "--cacert", plane.ca_file, "-d", "x=y"]
    command += ["-H", f"api-key: {plane.key}", "-H", "Expect: 100-continue"]
    # It would wait so long for a 100 before it sent the body without one.
    command += ["--expect100-timeout", "15", "--max-time", "10", plane.url]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert "< HTTP/1.1 100 Continue" in done.stderr
    assert done.stdout == hashlib.sha256(b"x=y").hexdigest()


def test_curl_reads_every_kind_of_answer(plane: DevProcess) -> None:
    assert curl(plane, f"{plane.url}/chunks") == "hello world"
    assert "X-Sum: 11" in curl(plane, "-i", f"{plane.url}/chunks")
    assert curl(plane, f"{plane.url}/until-close") == "to the end"
    assert curl(plane, "-w", "%{http_code}", f"{plane.url}/empty") == "204"
    assert "content-length: 12345" in curl(plane, "-I", plane.url).lower()
    hints = curl(plane, "-i", f"{plane.url}/hints")
    assert hints.startswith("HTTP/1.1 103 Early Hints\r\n")
    assert hints.endswith("after hints")
    assert "/here" in curl(plane, "-i", f"{plane.url}/redirect")


def test_curl_can_tell_an_answer_that_broke_off(plane: DevProcess) -> None:
    command = ["curl", "-sS", "--http1.1", "--cacert", plane.ca_file, "--max-time", "10"]
    command += ["-H", f"api-key: {plane.key}", f"{plane.url}/gone"]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    # 18: transfer closed with outstanding read data remaining; 56: no close-notify.
    assert done.returncode in {18, 56}, done
    assert done.stdout == "half"


def test_curl_sends_targets_of_every_form(plane: DevProcess, process: RecordingProcess) -> None:
    curl(plane, "-X", "OPTIONS", "--request-target", "*", plane.url)
    assert process.received[-1].raw.startswith(b"OPTIONS * HTTP/1.1\r\n")
    curl(plane, "--request-target", "http://other.example/x?y", plane.url)
    raw = process.received[-1].raw
    assert raw.startswith(b"GET /x?y HTTP/1.1\r\nHost: other.example\r\n")
    curl(plane, "--path-as-is", f"{plane.url}/a/../b//c/%2e%2e")
    assert process.received[-1].target == b"/a/../b//c/%2e%2e"


def test_curl_is_told_what_is_too_much(plane: DevProcess) -> None:
    large = ["-H", f"X: {'y' * 70_000}", "-w", "%{http_code}", "-o", "/dev/null"]
    assert curl(plane, *large, plane.url) == "431"
    long = ["-w", "%{http_code}", "-o", "/dev/null", f"{plane.url}/{'x' * 40_000}"]
    assert curl(plane, *long) == "414"


def test_a_refusal_reaches_a_client_that_sends_all_of_its_body_first(
    plane: DevProcess, process: RecordingProcess
) -> None:
    """The body is read on and dropped: a connection that is reset takes its answer along."""
    before = len(process.received)
    with requests.Session() as session:
        session.trust_env, session.verify = False, plane.ca_file
        answer = session.post(
            plane.url, data=b"x" * 50_000_000, headers={"api-key": "wrong"}, timeout=30
        )
    assert answer.status_code == 401
    assert answer.json() == {"message": "Invalid api key provided"}
    assert len(process.received) == before


def test_requests_streams_both_ways_on_one_connection(plane: DevProcess) -> None:
    pieces = [os.urandom(70_000) for _ in range(10)]
    with requests.Session() as session:
        # The environment may name another CA, which requests would prefer.
        session.trust_env, session.verify = False, plane.ca_file
        session.headers["api-key"] = plane.key
        for turn in range(3):
            kind = {"content-type": "application/octet-stream"}
            answer = session.post(plane.url, data=iter(pieces), headers=kind, timeout=20)
            assert answer.text == hashlib.sha256(b"".join(pieces)).hexdigest(), turn
            with session.get(f"{plane.url}/large", stream=True, timeout=20) as large:
                assert sum(map(len, large.iter_content(10_000))) == SIZE
            assert session.get(f"{plane.url}/chunks", timeout=20).text == "hello world"
            assert session.head(plane.url, timeout=20).headers["content-length"] == "12345"
        adapter = session.get_adapter(plane.url)
        assert isinstance(adapter, requests.adapters.HTTPAdapter)
        pools = adapter.poolmanager.pools
        (pool,) = (pools[key] for key in pools.keys())  # noqa: SIM118 - it is no mapping
        assert (pool.num_connections, pool.num_requests) == (1, 12)


def test_httpx_streams_both_ways_and_keeps_its_connection(
    plane: DevProcess, process: RecordingProcess
) -> None:
    context = ssl.create_default_context(cafile=plane.ca_file)
    with httpx.Client(verify=context, headers={"api-key": plane.key}, timeout=20) as client:
        before = plane.metric("connections_total")
        for _ in range(3):
            kind = {"content-type": "application/octet-stream"}
            pieces = (b"x" * 10_000 for _ in range(50))
            answer = client.post(plane.url, content=pieces, headers=kind)
            assert answer.text == hashlib.sha256(b"x" * 500_000).hexdigest()
            assert joined(process.received[-1].raw).endswith(b"x<end>\r\n")
            with client.stream("GET", f"{plane.url}/large") as large:
                assert sum(map(len, large.iter_bytes())) == SIZE
            with (
                pytest.raises(httpx.RemoteProtocolError),
                client.stream("GET", f"{plane.url}/gone") as gone,
            ):
                gone.read()
        # The one that broke off three times was replaced; no other was.
        assert plane.metric("connections_total") - before <= 4


@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk")
def test_wrk_sees_no_wrong_answer_under_load(plane: DevProcess) -> None:
    before = plane.metric("requests_total")
    command = ["wrk", "-t", "1", "-c", "64", "-d", "3s", "--timeout", "5s", "--latency"]
    command += ["-H", f"api-key: {plane.key}", f"{plane.url}/load"]
    told = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    found = re.search(r"(\d+) requests in", told)
    assert found, told
    assert int(found[1]) > 300
    assert "Non-2xx" not in told, told
    assert "Socket errors" not in told, told
    assert plane.metric("requests_total") - before >= int(found[1])


def _outputs(urls: list[str]) -> list[str]:
    """Every URL with an output of its own: curl pairs them."""
    return [urls[0], *(word for url in urls[1:] for word in ("-o", "/dev/null", url))]
