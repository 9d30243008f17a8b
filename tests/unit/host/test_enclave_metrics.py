"""Metrics of several enclaves in one text, whatever they say."""

import hypothesis
import hypothesis.strategies as st
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cloister.host.enclave_metrics import merged

GOOD = b"""# HELP cloister_requests_total Requests.
# TYPE cloister_requests_total counter
cloister_requests_total 3
# HELP cloister_responses_total Responses.
# TYPE cloister_responses_total counter
cloister_responses_total{status="2xx"} 2
cloister_responses_total{status="5xx"} 1
# HELP cloister_request_duration_seconds Time.
# TYPE cloister_request_duration_seconds histogram
cloister_request_duration_seconds_bucket{le="0.1"} 3
cloister_request_duration_seconds_bucket{le="+Inf"} 3
cloister_request_duration_seconds_sum 0.25
cloister_request_duration_seconds_count 3
"""


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_sample_has_the_label_of_its_enclave() -> None:
    text = merged([("a", GOOD), ("b", GOOD)])
    found = samples(text)
    assert len(found) == 2 * 7
    assert found["cloister_requests_total", (("enclave", "b"),)] == 3
    assert found["cloister_responses_total", (("enclave", "a"), ("status", "5xx"))] == 1
    assert text.count("# TYPE cloister_requests_total") == 1
    # Samples of one metric stand together.
    order = [line.partition("{")[0] for line in text.splitlines() if not line.startswith("#")]
    assert order[:4] == ["cloister_requests_total"] * 2 + ["cloister_responses_total"] * 2


@pytest.mark.parametrize(
    "line",
    [
        b"cloister_host_ready 1",
        b"# TYPE cloister_host_ready gauge\ncloister_host_ready 1",
        b"# TYPE up gauge\nup 1",
        b"cloister_other_total 1",
        b'cloister_requests_total{enclave="b"} 1',
        b'cloister_requests_total{a="b",enclave="b"} 1',
        b'cloister_requests_total{a="b"} 1\x00',
        b'cloister_requests_total{a="b\\"} 1',
        b'cloister_requests_total{a="b"c="d"} 1',
        b"cloister_requests_total one",
        b"\xff\xfe",
        b"# HELP cloister_requests_total \x1b[31m",
    ],
)
def test_what_is_not_of_the_format_or_not_the_enclaves_is_left_out(line: bytes) -> None:
    whole = merged([("a", GOOD)])
    assert merged([("a", GOOD + line + b"\n")]) == whole
    assert samples(whole)


@hypothesis.given(st.lists(st.sampled_from([*GOOD.splitlines(), b"}", b"{", b'"', b"\n", b"x 1"])))
def test_whatever_is_said_can_be_scraped(lines: list[bytes]) -> None:
    samples(merged([("a", b"\n".join(lines))]))


@hypothesis.given(st.binary(max_size=300))
def test_no_bytes_break_it(text: bytes) -> None:
    assert merged([("a", text)]).count("cloister_host") == 0
