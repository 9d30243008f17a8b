"""``/metrics``, read by Prometheus' own parser and judged by its rules for names."""

import concurrent.futures
import json
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping

import pytest
import requests
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from tests.support.application import Application, application, wait_until

from cloister import crypto
from cloister.dev import DataPlane
from cloister.host.metrics import relay_metrics
from cloister.host.relay import Relay


@pytest.fixture
def app() -> Iterator[Application]:
    with application() as running:
        yield running


def scrape(plane: DataPlane) -> str:
    answer = requests.get(f"http://{plane.metrics_address}/metrics", timeout=5)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return answer.text


def families(text: str) -> dict[str, Metric]:
    found = list(text_string_to_metric_families(text))
    names = [family.name for family in found]
    assert len(names) == len(set(names)), "each family once"
    return dict(zip(names, found, strict=True))


def value(text: str, name: str, labels: Mapping[str, str] | None = None) -> float:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == dict(labels or {}):
                return sample.value
    raise AssertionError(f"no {name}{labels or ''}")


def check_names(text: str) -> None:
    """The rules of ``promtool check metrics`` (promlint), for what is there."""
    for name, family in families(text).items():
        assert family.documentation, f"{name} has no help"
        assert family.type in {"counter", "gauge", "histogram"}, name
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name), name
        # The parser cuts `_total` off counters; a counter without it keeps its type and loses it.
        raw = f"# TYPE {name}_total counter" if family.type == "counter" else f"# TYPE {name} "
        assert raw in text, f"{name} must end in _total if and only if it counts"
        if family.type != "counter":
            assert not name.endswith("_total"), name
        for word in ("counter", "gauge", "histogram", "milliseconds", "_ms", "kilobytes", "_kb"):
            assert word not in name, name
        if family.type != "histogram":
            assert not name.endswith(("_bucket", "_count", "_sum")), name
        for sample in family.samples:
            assert all(re.fullmatch(r"[a-z_]+", label) for label in sample.labels), sample
            assert family.type == "gauge" or sample.value >= 0, sample
    assert text.endswith("\n")


def test_every_name_is_as_prometheus_wants_it(app: Application) -> None:
    with DataPlane(app.address, metrics_listen="127.0.0.1:0") as plane:
        text = scrape(plane)
    check_names(text)
    found = families(text)
    wanted = """state build_info process_healthy process_restarts bundle_version bundles service_up
        sealed_objects sealed_object_heads
        clock_offset_seconds certificate_not_after_seconds log_ring_records log_ring_bytes
        log_ring_limit_bytes log_records_dropped log_records_acked connections connections_open
        connections_shed connections_waiting requests requests_open responses refusals
        request_duration_seconds websockets websockets_open sessions sessions_open
        proxy_headers_refused handshakes handshakes_failed
        fields_opened key_cache_hits keys_derived received_bytes sent_bytes upstream_errors
        upstream_connections memory_total_bytes memory_available_bytes memory_tmpfs_bytes
        cpu_busy_seconds descriptors_open descriptors_limit process_cpu_seconds
        process_resident_memory_bytes"""
    assert not [name for name in wanted.split() if f"cloister_{name}" not in found]


def test_what_happened_is_what_is_counted(app: Application) -> None:
    """Two workers, so that what is shown is a sum."""
    with DataPlane(app.address, metrics_listen="127.0.0.1:0", workers=2) as plane:
        token = crypto.encrypt("x", plane.app_public_key)
        body = f'["{token}","{token}"]'.encode()
        ca_file = str(plane.ca_file)

        def ask(number: int) -> int:
            headers = {"api-key": plane.api_key, "content-type": "application/json"}
            if number % 4 == 3:
                headers["api-key"] = "wrong"
            sent = body.replace(b":$", b"A:$") if number % 4 == 2 else body
            answer = requests.post(
                plane.url, data=sent, headers=headers, verify=ca_file, timeout=10
            )
            return answer.status_code

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            statuses = list(pool.map(ask, range(40)))
        assert sorted(statuses) == [200] * 20 + [401] * 10 + [422] * 10
        with socket.create_connection(("127.0.0.1", int(plane.address.rpartition(":")[2]))) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert raw.recv(1000) != b"HTTP"
        wait_until(
            lambda: value(scrape(plane), "cloister_handshakes_failed_total", {"reason": "tls"}) == 1
        )
        wait_until(lambda: value(scrape(plane), "cloister_requests_open") == 0)
        text = scrape(plane)
    check_names(text)
    for name, label, counts in [
        ("responses", "status", {"2xx": 20, "4xx": 20, "5xx": 0, "none": 0}),
        ("refusals", "reason", {"unauthorized": 10, "ciphertext": 10, "malformed": 0}),
        ("upstream_errors", "kind", {"connect": 0, "incomplete": 0}),
    ]:
        for of, count in counts.items():
            assert value(text, f"cloister_{name}_total", {label: of}) == count, (name, of)
    assert value(text, "cloister_requests_total") == 40
    assert value(text, "cloister_fields_opened_total") == 40
    handshakes = {"kind": "full", "version": "1.3"}
    assert value(text, "cloister_handshakes_total", handshakes) == 40
    used = [
        value(text, "cloister_upstream_connections_total", {"source": source})
        for source in ("new", "reused")
    ]
    assert sum(used) == 20
    # One key for each worker at most; everything else was at hand.
    derived = value(text, "cloister_keys_derived_total")
    assert 1 <= derived <= 2
    assert value(text, "cloister_key_cache_hits_total") == 50 - derived
    buckets = [
        sample.value
        for sample in families(text)["cloister_request_duration_seconds"].samples
        if sample.name.endswith("_bucket")
    ]
    assert buckets == sorted(buckets)
    assert buckets[-1] == value(text, "cloister_request_duration_seconds_count") == 40
    assert value(text, "cloister_request_duration_seconds_sum") > 0


def curl(plane: DataPlane, *words: str) -> list[str]:
    """Lines that curl writes with HTTP/2."""
    fixed = ["curl", "-sS", "--http2", "--cacert", str(plane.ca_file), "--max-time", "20"]
    done = subprocess.run(
        [*fixed, "-H", f"api-key: {plane.api_key}", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_http2_is_counted_like_http1(app: Application) -> None:
    """And opened like it: more keys than one slice are derived in turns."""
    limits = {"keepalive_requests": 3}
    with DataPlane(app.address, metrics_listen="127.0.0.1:0", config={"limits": limits}) as plane:
        sealed = [crypto.encrypt(f"value {number}", plane.app_public_key) for number in range(100)]
        shown = ["-w", "%{http_version} %{http_code} %{num_connects}\n", "-o", "/dev/null"]
        kind = ["-H", "content-type: application/json"]
        for count in (20, 100):
            body = json.dumps(sealed[:count])
            assert curl(plane, *shown, *kind, "--data", body, plane.url) == ["2 200 1"]
            opened = json.loads(app.seen[-1].body)
            assert opened == [f"value {number}" for number in range(count)]
        # The connection is given up after its third request, and the client told before.
        fixed = ["-sS", "--http2", "--cacert", str(plane.ca_file), "-H", "api-key: wrong"]
        each = [word for _ in range(5) for word in ("--next", *fixed, *shown, plane.url)][1:]
        done = subprocess.run(["curl", *each], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == [f"2 401 {connects}" for connects in (1, 0, 0, 1, 0)]
        wait_until(lambda: value(scrape(plane), "cloister_requests_open") == 0)
        text = scrape(plane)
    assert value(text, "cloister_responses_total", {"status": "2xx"}) == 2
    assert value(text, "cloister_responses_total", {"status": "4xx"}) == 5
    assert value(text, "cloister_refusals_total", {"reason": "unauthorized"}) == 5
    assert value(text, "cloister_request_duration_seconds_count") == 7
    assert value(text, "cloister_keys_derived_total") == 100
    assert value(text, "cloister_key_cache_hits_total") == 20


def test_handshakes_are_counted_by_kind_and_version(app: Application) -> None:
    with DataPlane(app.address, metrics_listen="127.0.0.1:0") as plane:
        port = int(plane.address.rpartition(":")[2])
        context = ssl.create_default_context(cafile=str(plane.ca_file))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        session = None
        for _ in range(2):
            with (
                socket.create_connection(("127.0.0.1", port)) as raw,
                context.wrap_socket(raw, server_hostname="localhost", session=session) as tls,
            ):
                session = tls.session

        def count(kind: str) -> float:
            labels = {"kind": kind, "version": "1.2"}
            return value(scrape(plane), "cloister_handshakes_total", labels)

        wait_until(lambda: (count("full"), count("resumed")) == (1, 1))


def test_a_user_process_that_is_not_there_is_an_error_of_its_kind() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with DataPlane(address, metrics_listen="127.0.0.1:0") as plane:
        headers = {"api-key": plane.api_key}
        answer = requests.get(plane.url, headers=headers, verify=str(plane.ca_file), timeout=10)
        assert answer.status_code == 502
        text = scrape(plane)
    assert value(text, "cloister_upstream_errors_total", {"kind": "connect"}) == 1
    assert value(text, "cloister_refusals_total", {"reason": "upstream"}) == 1


def test_the_relays_metrics_follow_the_same_rules(app: Application) -> None:
    with Relay("tcp:127.0.0.1:0", f"tcp:{app.address}") as relay:
        check_names(relay_metrics(relay.stats()))
