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
        b"cloister_requests_total 1.2.3",
        b"cloister_requests_total 1e",
        b'cloister_requests_total{a="1",a="2"} 1',
        b"\xff\xfe",
        b"# HELP cloister_requests_total \x1b[31m",
    ],
)
def test_what_is_not_of_the_format_or_not_the_enclaves_is_left_out(line: bytes) -> None:
    whole = merged([("a", GOOD)])
    assert merged([("a", GOOD + line + b"\n")]) == whole
    assert samples(whole)


NAMES = st.sampled_from(
    ["cloister_a_total", "cloister_b", "cloister_host_ready", "up", "cloister_b_sum"]
)
LABELS = st.sampled_from(
    ["", "{}", '{a="1"}', '{a="1",b="2"}', '{a="1",a="2"}', '{enclave="x"}', '{a="\\"}']
)
VALUES = st.one_of(
    st.sampled_from(["1", "-1.5e3", "NaN", "+Inf", "1e", "1.2.3", ""]), st.text(max_size=5)
)
LINES = st.one_of(
    st.builds(
        "# TYPE {} {}".format, NAMES, st.sampled_from(["counter", "gauge", "histogram", "x"])
    ),
    st.builds("# HELP {} {}".format, NAMES, st.text(max_size=10)),
    st.builds("{}{} {}".format, NAMES, LABELS, VALUES),
)


@hypothesis.given(st.lists(LINES, max_size=30), st.lists(LINES, max_size=30))
def test_whatever_is_said_can_be_scraped(one: list[str], other: list[str]) -> None:
    """The parser refuses a whole text for one bad line."""
    text = merged([("a", "\n".join(one).encode()), ("b", "\n".join(other).encode()), ("c", GOOD)])
    found = samples(text)
    assert found["cloister_requests_total", (("enclave", "c"),)] == 3
    assert not [name for name, _ in found if name.startswith("cloister_host") or name == "up"]
