"""The data plane as a Python object, with real clients: requests, curl, openssl."""

import contextlib
import datetime as dt
import email
import email.policy
import json
import pathlib
import secrets
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator

import httpx
import pytest
import requests
from tests.support.application import Application, application, wait_until

from cloister import crypto
from cloister.dev import ApiKey, DataPlane, Relay
from cloister.errors import ConfigError, KeyFileError, MissingInput, RunnerError, UsageError


@pytest.fixture
def app() -> Iterator[Application]:
    with application() as running:
        yield running


def call(
    plane: DataPlane, path: str = "/", *, key: str | None = None, data: bytes | None = None
) -> requests.Response:
    """One request with the plane's own key, or another."""
    headers = {"api-key": plane.api_key if key is None else key, "content-type": "application/json"}
    return requests.request(
        "GET" if data is None else "POST",
        plane.url + path,
        data=data,
        headers=headers,
        verify=str(plane.ca_file),
        timeout=10,
    )


def test_it_starts_in_well_under_a_second_and_serves(app: Application) -> None:
    begun = time.monotonic()
    with DataPlane(app.address) as plane:
        assert time.monotonic() - begun < 1.0
        answer = call(plane, "/hello")
        assert (answer.status_code, answer.json()) == (200, {"path": "/hello"})
        context = answer.headers["x-evervault-ctx"]
        assert len(context) == 32
        assert app.seen[0].header("x-evervault-ctx") == context
        assert app.seen[0].header("api-key") is None
        assert plane.health()["state"] == "ready"
        assert plane.stats()["requests"] == 1
    assert plane.stats()["requests"] == 1


def test_curl_and_openssl_believe_the_certificate(app: Application) -> None:
    with DataPlane(app.address) as plane:
        for host in ("localhost", "127.0.0.1"):
            url = f"https://{host}:{plane.address.rpartition(':')[2]}/curl"
            curl = ["curl", "-sS", "--fail", "--cacert", str(plane.ca_file), "--max-time", "10"]
            done = subprocess.run(
                [*curl, "-H", f"api-key: {plane.api_key}", url], capture_output=True, check=True
            )
            assert json.loads(done.stdout) == {"path": "/curl"}
            # It offers HTTP/1.0 alone in the handshake.
            old = subprocess.run(
                [*curl, "--http1.0", "-H", f"api-key: {plane.api_key}", url],
                capture_output=True,
                check=True,
            )
            assert json.loads(old.stdout) == {"path": "/curl"}
        openssl = ["openssl", "s_client", "-connect", plane.address, "-verify_return_error"]
        shown = subprocess.run(
            [*openssl, "-CAfile", str(plane.ca_file), "-verify_hostname", "localhost", "-brief"],
            input=b"",
            capture_output=True,
            check=True,
        )
        assert b"Verification: OK" in shown.stderr
        assert b"TLSv1.3" in shown.stderr
        # Without the development CA nobody believes it.
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(plane.url, timeout=10)


def test_a_key_is_asked_for_and_its_scope_too(app: Application) -> None:
    this, other = (f"ck_{name}_{secrets.token_urlsafe(32)}" for name in ("this", "other"))
    ended = f"ck_ended_{secrets.token_urlsafe(32)}"
    config = {"uuid": "0d5a2a8e-6a51-4f3b-bf0f-4d8c3f0a9e33"}
    keys = [
        ApiKey(value=this, scopes=(f"enclave:{config['uuid']}",)),
        ApiKey(value=other, scopes=("enclave:11111111-6a51-4f3b-bf0f-4d8c3f0a9e33",)),
        ApiKey(value=ended, not_after=dt.datetime(2020, 1, 1, tzinfo=dt.UTC)),
    ]
    with DataPlane(app.address, config=config, api_keys=keys) as plane:
        assert call(plane, key=this).status_code == 200
        assert call(plane, key=other).status_code == 403
        for wrong in (ended, this[:-1] + "_", "nonsense"):
            assert call(plane, key=wrong).status_code == 401
        missing = requests.get(plane.url, verify=str(plane.ca_file), timeout=10)
        assert missing.status_code == 401
        assert missing.json() == {"message": "No api-key header present on request"}
    assert len(app.seen) == 1


def test_a_form_of_a_real_client_arrives_in_clear(app: Application) -> None:
    """curl, requests and httpx each have their own way to percent-encode and to name a boundary."""
    with DataPlane(app.address) as plane:
        headers = {"api-key": plane.api_key}
        value = "a b&c=d é"
        token = crypto.encrypt(value, plane.app_public_key)
        fields = {"card": token, "plain": "1"}
        verify = str(plane.ca_file)
        requests.post(plane.url, data=fields, verify=verify, headers=headers, timeout=10)
        curl = ["curl", "-sS", "--fail", "--cacert", verify, "-H", f"api-key: {plane.api_key}"]
        plain = ["--data-urlencode", f"card={token}", "-d", "plain=1"]
        # Without encoding a plus of the token goes over the wire as it is.
        raw = ["-d", f"card={token}", "-d", "plain=1"]
        for data in (plain, raw):
            subprocess.run([*curl, *data, plane.url], capture_output=True, check=True)
        with httpx.Client(verify=ssl.create_default_context(cafile=verify)) as client:
            client.post(plane.url, data=fields, headers=headers)
        assert len(app.seen) == 4
        for seen in app.seen:
            found = urllib.parse.parse_qs(seen.body.decode(), strict_parsing=True)
            assert found == {"card": [value], "plain": ["1"]}


def test_the_parts_of_a_real_client_arrive_in_clear(
    app: Application, tmp_path: pathlib.Path
) -> None:
    with DataPlane(app.address) as plane:
        token = crypto.encrypt("a b\n", plane.app_public_key)
        document = crypto.encrypt_json(b'{"k": "v"}', plane.app_public_key)
        (tmp_path / "photo.png").write_bytes(token.encode())
        headers = {"api-key": plane.api_key}
        verify = str(plane.ca_file)
        files = {
            "field": (None, token),
            "document": ("d.json", document, "application/json"),
            "photo": ("photo.png", token.encode(), "image/png"),
        }
        requests.post(plane.url, files=files, headers=headers, verify=verify, timeout=10)
        curl = ["curl", "-sS", "--fail", "--cacert", verify, "-H", f"api-key: {plane.api_key}"]
        (tmp_path / "d.json").write_bytes(document)
        parts = [f"field={token}", f"document=@{tmp_path / 'd.json'};type=application/json"]
        parts.append(f"photo=@{tmp_path / 'photo.png'};type=image/png")
        forms = [word for part in parts for word in ("-F", part)]
        subprocess.run([*curl, *forms, plane.url], capture_output=True, check=True)
        with httpx.Client(verify=ssl.create_default_context(cafile=verify)) as client:
            client.post(plane.url, files=files, headers=headers)
        assert len(app.seen) == 3
        for seen in app.seen:
            head = f"content-type: {seen.header('content-type')}\r\n\r\n".encode()
            message = email.message_from_bytes(head + seen.body, policy=email.policy.HTTP)
            found = {
                part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
                for part in message.iter_parts()
            }
            # An image is no text: its bytes are nobody's to change.
            expected = {"field": b"a b\n", "document": b'{"k": "v"}', "photo": token.encode()}
            assert found == expected


def test_fields_that_were_encrypted_arrive_in_clear(app: Application) -> None:
    with DataPlane(app.address) as plane:
        value = {"name": "Ada", "age": 36, "admin": True, "note": None}
        clear = json.dumps(value).encode()
        sealed = crypto.encrypt_json(clear, plane.app_public_key)
        assert b"Ada" not in sealed
        answer = call(plane, data=sealed)
        assert answer.json() == value
        assert json.loads(app.seen[0].body) == value
        # Counted when the answer was sent, which is after it arrived.
        wait_until(lambda: plane.stats()["fields_opened"] == 3)
        # Another app's ciphertext is refused before the application hears of it.
        with DataPlane(app.address) as stranger:
            foreign = crypto.encrypt_json(clear, stranger.app_public_key)
        refused = call(plane, data=foreign)
        assert refused.status_code == 422
        assert "Ada" not in refused.text
    assert len(app.seen) == 1


def test_an_app_key_of_a_file_opens_and_only_when_it_is_marked(
    app: Application, tmp_path: pathlib.Path
) -> None:
    key = {"class": "development", "curve": "P-256", "private": "AQ" + "E" * 41 + "="}
    marked, production = tmp_path / "dev.json", tmp_path / "production.json"
    marked.write_text(json.dumps(key))
    production.write_text(json.dumps({**key, "class": "production"}))
    with DataPlane(app.address, app_keys=[marked]) as first:
        sealed = crypto.encrypt_json(b'{"a":"clear"}', first.app_public_key)
    with DataPlane(app.address, app_keys=[marked]) as second:
        assert call(second, data=sealed).json() == {"a": "clear"}
    with pytest.raises(KeyFileError, match="not marked"):
        DataPlane(app.address, app_keys=[production]).start()


def test_each_request_leaves_one_log_line(app: Application, tmp_path: pathlib.Path) -> None:
    logs = tmp_path / "trx.ndjson"
    with DataPlane(app.address, logs=logs) as plane:
        contexts = [call(plane, "/a?secret=1").headers["x-evervault-ctx"] for _ in range(3)]
        plane.drain(dt.timedelta(seconds=5))
    records = [json.loads(line) for line in logs.read_text().splitlines()]
    assert [record["txid"] for record in records] == contexts
    assert [record["sequence"] for record in records] == [1, 2, 3]
    assert "secret=1" not in logs.read_text()
    assert plane.api_key not in logs.read_text()


def test_without_logging_there_are_no_lines(app: Application, tmp_path: pathlib.Path) -> None:
    logs = tmp_path / "trx.ndjson"
    config = {"logs": {"trx_logging": False}}
    with DataPlane(app.address, config=config, logs=logs) as plane:
        assert call(plane).status_code == 200
        plane.drain(dt.timedelta(seconds=5))
    assert logs.read_text() == ""


def test_a_drain_lets_what_is_in_flight_finish_and_lets_nobody_in(app: Application) -> None:
    with DataPlane(app.address) as plane:
        answers: list[requests.Response] = []
        client = threading.Thread(target=lambda: answers.append(call(plane, "/slow")))
        client.start()
        assert app.entered.wait(10)
        draining = threading.Thread(target=plane.drain, args=(dt.timedelta(seconds=20),))
        draining.start()
        wait_until(lambda: _is_refused(plane.address))
        app.released.set()
        client.join(10)
        draining.join(10)
        assert answers[0].status_code == 200
        assert not draining.is_alive()


def test_stop_does_not_wait_for_a_drain(app: Application) -> None:
    with DataPlane(app.address) as plane:
        client = threading.Thread(target=lambda: _swallow(plane))
        client.start()
        assert app.entered.wait(10)
        draining = threading.Thread(target=plane.drain, args=(dt.timedelta(seconds=60),))
        draining.start()
        wait_until(lambda: plane.health()["state"] == "draining")
        begun = time.monotonic()
        plane.stop()
        assert time.monotonic() - begun < 5
        draining.join(5)
        client.join(10)


def test_an_application_that_is_away_is_502(app: Application) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with DataPlane(f"127.0.0.1:{port}") as plane:
            answer = call(plane)
            assert answer.status_code == 502
            assert "message" in answer.json()
    assert not app.seen


def test_behind_a_relay_the_client_is_known(app: Application, tmp_path: pathlib.Path) -> None:
    logs = tmp_path / "trx.ndjson"
    with (
        DataPlane(app.address, proxy_protocol=True, logs=logs) as plane,
        Relay("tcp:127.0.0.1:0", f"tcp:{plane.address}", proxy_protocol=True) as relay,
    ):
        port = relay.address.rpartition(":")[2]
        url = f"https://localhost:{port}/relayed"
        answer = requests.get(
            url, headers={"api-key": plane.api_key}, verify=str(plane.ca_file), timeout=10
        )
        assert answer.status_code == 200
        # Without the header of the relay the stream is closed.
        with pytest.raises((ssl.SSLError, OSError)):
            call(plane)
        plane.drain(dt.timedelta(seconds=5))
    assert json.loads(logs.read_text())["remoteIp"] == "127.0.0.1"


def test_a_given_certificate_is_served(app: Application, tmp_path: pathlib.Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=given", "-keyout", str(key)),
            *("-addext", "subjectAltName=DNS:localhost", "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    with DataPlane(app.address, certificate=(certificate, key)) as plane:
        answer = requests.get(
            plane.url, headers={"api-key": plane.api_key}, verify=str(certificate), timeout=10
        )
        assert answer.status_code == 200
        with pytest.raises(UsageError, match="no development CA"):
            _ = plane.ca_file
    with pytest.raises(RunnerError, match="certificate"):
        DataPlane(app.address, certificate=(certificate, certificate)).start()


def test_metrics_are_served_where_they_were_asked_for(app: Application) -> None:
    with DataPlane(app.address, metrics_listen="127.0.0.1:0") as plane:
        call(plane)
        base = f"http://{plane.metrics_address}"
        wait_until(lambda: requests.get(f"{base}/health", timeout=5).status_code == 200)
        metrics = requests.get(f"{base}/metrics", timeout=5).text
        assert "\ncloister_requests_total 1\n" in metrics


def test_what_cannot_start_says_why(app: Application, tmp_path: pathlib.Path) -> None:
    with DataPlane(app.address) as plane, pytest.raises(RunnerError) as taken:
        DataPlane(app.address, listen=plane.address).start()
    assert "cannot listen on" in str(taken.value)
    assert "in use" in str(taken.value)
    with pytest.raises(ConfigError, match="unknown field"):
        DataPlane(app.address, config={"surprise": 1}).start()
    with pytest.raises(ConfigError):
        DataPlane(app.address, api_keys=["short"]).start()
    with pytest.raises(MissingInput):
        DataPlane(app.address, app_keys=[tmp_path / "none.json"])
    with pytest.raises(UsageError, match="HOST:PORT"):
        DataPlane("nonsense")
    with pytest.raises(UsageError, match="not started"):
        DataPlane(app.address).stats()


def test_several_run_side_by_side(app: Application) -> None:
    with DataPlane(app.address) as first, DataPlane(app.address, workers=2) as second:
        assert first.api_key != second.api_key
        assert call(first).status_code == call(second).status_code == 200
        assert call(first, key=second.api_key).status_code == 401


def _is_refused(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return False
    except OSError:
        return True


def _swallow(plane: DataPlane) -> None:
    with contextlib.suppress(requests.RequestException):
        call(plane, "/slow")
