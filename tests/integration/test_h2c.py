"""A user process that speaks HTTP/2 in clear, with servers that nobody here wrote.

`nghttpd` of nghttp2 says back what it is sent; `hypercorn` runs an application that says what it
was asked. Clients speak HTTP/1.1 and HTTP/2. gRPC is in ``test_grpc.py``.
"""

import contextlib
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.application import wait_until

from cloister import crypto
from cloister.dev import DataPlane

MIB = 1 << 20
PLANE: dict[str, Any] = {"service": {"protocol": "h2c"}}
VERSIONS = ["--http1.1", "--http2"]
# Says what it was asked; `/events` three times half a second apart; `/large` 8 MiB.
APPLICATION = """
import asyncio, json

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["path"] == "/events":
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-type", b"text/event-stream")]})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"data: x\\n\\n", "more_body": True})
            await asyncio.sleep(0.5)
        await send({"type": "http.response.body", "body": b""})
        return
    if scope["path"] == "/large":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(128):
            await send({"type": "http.response.body", "body": b"z" * 65536, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    if scope["path"] == "/none":
        await send({"type": "http.response.start", "status": 204, "headers": [(b"x-a", b"b")]})
        await send({"type": "http.response.body", "body": b""})
        return
    seen = {
        "version": scope["http_version"],
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")]
                    for name, value in scope["headers"]],
        "body": body.decode(),
    }
    answer = json.dumps(seen).encode()
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"application/json"), (b"x-raw", b"\\xe9\\xff")]})
    await send({"type": "http.response.body", "body": answer})
"""


@contextlib.contextmanager
def running(*command: str, port: int, cwd: pathlib.Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server that listens on a port of 127.0.0.1, for the length of a block."""
    with subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        try:
            wait_until(listens, 20)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def behind_hypercorn(folder: pathlib.Path, application: str) -> Iterator[DataPlane]:
    """A data plane in front of hypercorn with this application, for the length of a block."""
    (folder / "application.py").write_text(application, encoding="utf-8")
    port = free_port()
    command = [sys.executable, "-m", "hypercorn", "--workers", "0"]
    command += ["--bind", f"127.0.0.1:{port}", "application:app"]
    with (
        running(*command, port=port, cwd=folder),
        DataPlane(f"127.0.0.1:{port}", config=PLANE) as plane,
    ):
        yield plane


@pytest.fixture(scope="module")
def hypercorn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    with behind_hypercorn(tmp_path_factory.mktemp("hypercorn"), APPLICATION) as plane:
        yield plane


@pytest.fixture(scope="module")
def nghttpd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    program = shutil.which("nghttpd") or shutil.which("nghttpd", path="/usr/sbin")
    if program is None:
        pytest.skip("nghttp2-server is not installed")
    folder = tmp_path_factory.mktemp("nghttpd")
    (folder / "file").write_bytes(b"0123456789" * 100_000)
    port = free_port()
    command = [program, "--no-tls", "--echo-upload", "--trailer", "x-sum: 6", "-a", "127.0.0.1"]
    with (
        running(*command, "-d", str(folder), str(port), port=port, cwd=folder),
        DataPlane(f"127.0.0.1:{port}", config=PLANE) as plane,
    ):
        yield plane


def curl(plane: DataPlane, path: str, *words: str) -> tuple[str, bytes]:
    """Last head and body of what curl is answered."""
    command = ["curl", "-sS", "-i", "--cacert", str(plane.ca_file), "--max-time", "20"]
    command += ["-H", f"api-key: {plane.api_key}", *words, plane.url + path]
    head, body = b"", subprocess.run(command, capture_output=True, check=True).stdout
    while body.startswith(b"HTTP/"):
        head, _, body = body.partition(b"\r\n\r\n")
    return head.decode("latin-1") + "\r\n", body


@pytest.mark.parametrize("version", VERSIONS)
def test_hypercorn_gets_what_was_asked(version: str, hypercorn: DataPlane) -> None:
    words = ("-H", "X-Mine: a", "-H", "X-Mine: b", "-H", "Cookie: c=1", "-A", "me")
    head, body = curl(hypercorn, "/a%20b?c=d&e", version, *words)
    assert head.startswith(f"HTTP/{version[-1] if version == '--http2' else '1.1'} 200")
    context = re.search(r"(?i)x-evervault-ctx: ([0-9A-F]{32})\r\n", head)
    assert context
    assert "x-raw: \xe9\xff\r\n" in head.lower()
    seen = json.loads(body)
    assert (seen["version"], seen["method"], seen["path"]) == ("2", "GET", "/a b")
    assert seen["query"] == "c=d&e"
    pairs = [tuple(pair) for pair in seen["headers"]]
    assert [value for name, value in pairs if name == "x-mine"] == ["a", "b"]
    headers = dict(pairs)
    assert headers["cookie"] == "c=1"
    assert headers["user-agent"] == "me"
    assert headers["x-evervault-ctx"] == context[1]
    assert headers["x-forwarded-proto"] == "https"
    names = set(headers)
    assert not names & {"api-key", "connection", "transfer-encoding", "upgrade", "keep-alive"}


def test_a_target_that_no_uri_has_is_refused_and_not_another_one(hypercorn: DataPlane) -> None:
    for target in ("/a<b", "/a`b?c"):
        head, body = curl(hypercorn, "/", "--http1.1", "--request-target", target)
        assert head.startswith("HTTP/1.1 400 "), target
        assert "the target" in json.loads(body)["message"]
    _, body = curl(hypercorn, "/", "--http1.1", "--request-target", '/a%3Cb"{}')
    assert json.loads(body)["path"] == '/a<b"{}'
    # A host that names nobody: the request goes on for the user process itself.
    head, body = curl(hypercorn, "/nobody", "--http1.1", "-H", "Host;")
    assert head.startswith("HTTP/1.1 200 ")
    assert json.loads(body)["path"] == "/nobody"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_body_arrives_in_clear(version: str, hypercorn: DataPlane) -> None:
    token = crypto.encrypt("Ä 1", hypercorn.app_public_key)
    text = json.dumps({"card": token, "plain": [1, 2]})
    for words in ((), ("-H", "transfer-encoding: chunked")):
        if version == "--http2" and words:
            continue
        _, body = curl(hypercorn, "/", version, "--json", text, *words)
        seen = json.loads(body)
        assert seen["method"] == "POST"
        assert json.loads(seen["body"]) == {"card": "Ä 1", "plain": [1, 2]}
        length = dict(map(tuple, seen["headers"])).get("content-length")
        assert length in {None, str(len(seen["body"].encode()))}


@pytest.mark.parametrize("version", VERSIONS)
def test_answers_of_every_kind(version: str, hypercorn: DataPlane) -> None:
    head, body = curl(hypercorn, "/none", version)
    assert " 204" in head
    assert "x-a: b" in head.lower()
    assert body == b""
    head, body = curl(hypercorn, "/", version, "--head")
    assert " 200" in head
    assert body == b""
    _, body = curl(hypercorn, "/large", version)
    assert body == b"z" * (8 * MIB)


def test_an_old_client_gets_a_body_without_chunks(hypercorn: DataPlane) -> None:
    head, body = curl(hypercorn, "/large", "--http1.0")
    assert "transfer-encoding" not in head.lower()
    assert body == b"z" * (8 * MIB)


@pytest.mark.parametrize("version", VERSIONS)
def test_events_are_not_held_back(version: str, hypercorn: DataPlane) -> None:
    command = ["curl", "-sSN", version, "--cacert", str(hypercorn.ca_file), "--max-time", "20"]
    command += ["-w", "%{time_starttransfer} %{time_total}", "-H", f"api-key: {hypercorn.api_key}"]
    command.append(hypercorn.url + "/events")
    shown = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    events, _, times = shown.rpartition("\n")
    assert events == "data: x\n\n" * 2 + "data: x\n"
    first, total = map(float, times.split())
    assert total - first > 1.2


@pytest.mark.parametrize("version", VERSIONS)
def test_nghttpd_says_back_what_it_was_sent(
    version: str, nghttpd: DataPlane, tmp_path: pathlib.Path
) -> None:
    token = crypto.encrypt("four", nghttpd.app_public_key)
    head, body = curl(nghttpd, "/echo", version, "--json", f'["{token}"]')
    assert " 200" in head
    assert body == b'["four"]'
    large = tmp_path / "large"
    large.write_bytes(bytes(range(256)) * (MIB // 64))
    words = ("-H", "content-type: image/png", "--data-binary", f"@{large}")
    _, body = curl(nghttpd, "/echo", version, *words)
    assert body == large.read_bytes()


@pytest.mark.parametrize("version", VERSIONS)
def test_nghttpd_serves_files(version: str, nghttpd: DataPlane) -> None:
    head, body = curl(nghttpd, "/file", version)
    assert " 200" in head
    assert body == b"0123456789" * 100_000
    head, _ = curl(nghttpd, "/missing", version)
    assert " 404" in head


@pytest.mark.skipif(shutil.which("nghttp") is None, reason="nghttp2-client is not installed")
def test_trailers_of_nghttpd_reach_nghttp(nghttpd: DataPlane) -> None:
    command = ["nghttp", "-v", "-n", "-H", f"api-key: {nghttpd.api_key}"]
    url = f"https://{nghttpd.address}/file"
    shown = subprocess.run([*command, url], capture_output=True, check=True, text=True).stdout
    assert ":status: 200" in shown
    assert "x-sum: 6" in shown
    assert "recv RST_STREAM" not in shown


@pytest.mark.skipif(shutil.which("h2load") is None, reason="nghttp2-client is not installed")
@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
def test_h2load_has_every_request_answered(protocol: str, nghttpd: DataPlane) -> None:
    command = ["h2load", "-n", "2000", "-c", "4", "-m", "16" if protocol == "h2" else "1"]
    command += ["--npn-list", protocol, "-H", f"api-key: {nghttpd.api_key}"]
    url = f"https://{nghttpd.address}/file"
    shown = subprocess.run([*command, url], capture_output=True, check=True, text=True).stdout
    assert f"Application protocol: {protocol}" in shown
    assert "2000 succeeded, 0 failed, 0 errored" in shown
    assert "2000 2xx" in shown


def test_without_the_process_it_is_a_502_and_with_it_again_a_200(tmp_path: pathlib.Path) -> None:
    (tmp_path / "application.py").write_text(APPLICATION, encoding="utf-8")
    port = free_port()
    command = [sys.executable, "-m", "hypercorn", "--workers", "0"]
    command += ["--bind", f"127.0.0.1:{port}", "application:app"]
    with DataPlane(f"127.0.0.1:{port}", config=PLANE) as plane:
        for version in VERSIONS:
            head, body = curl(plane, "/", version)
            assert " 502" in head
            assert list(json.loads(body)) == ["message"]
        for _ in range(2):
            with running(*command, port=port, cwd=tmp_path):
                for version in VERSIONS:
                    assert " 200" in curl(plane, "/", version)[0]
            for version in VERSIONS:
                assert " 502" in curl(plane, "/", version)[0]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_process_that_dies_within_an_answer_leaves_nobody_hanging(
    version: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "application.py").write_text(APPLICATION, encoding="utf-8")
    port = free_port()
    command = [sys.executable, "-m", "hypercorn", "--workers", "0"]
    command += ["--bind", f"127.0.0.1:{port}", "application:app"]
    with (
        running(*command, port=port, cwd=tmp_path) as process,
        DataPlane(f"127.0.0.1:{port}", config=PLANE) as plane,
    ):
        client = ["curl", "-sSN", version, "--cacert", str(plane.ca_file), "--max-time", "20"]
        client += ["-H", f"api-key: {plane.api_key}", plane.url + "/events"]
        with subprocess.Popen(client, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
            assert asking.stdout is not None
            assert asking.stdout.readline() == b"data: x\n"
            process.kill()
            begun = time.monotonic()
            # Stream reset, or a body without its last chunk: never one that looks whole.
            assert asking.wait(10) in ({92} if version == "--http2" else {18, 56})
            assert time.monotonic() - begun < 2
