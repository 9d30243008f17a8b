"""What a host says of itself to Prometheus."""

import uuid

from prometheus_client.parser import text_string_to_metric_families

from cloister.host.metrics import host_metrics
from cloister.host.stats import RelayStats, ServiceState

ONE, TWO = uuid.UUID(int=1), uuid.UUID(int=2)
RELAY = RelayStats(
    accepted=7,
    active=1,
    refused=0,
    connect_errors=0,
    failed=0,
    idle_closed=0,
    bytes_in=10,
    bytes_out=20,
    last_error=None,
)


def state(enclave: uuid.UUID, relay: RelayStats | None) -> ServiceState:
    return ServiceState(
        enclave=enclave,
        address=None,
        deployment=None,
        is_ready=relay is not None,
        state="ready",
        reason=None,
        knows_platform=True,
        boots=3,
        failures=2,
        relay=relay,
    )


def test_the_text_is_prometheus_own_format_with_a_label_for_each_enclave() -> None:
    text = host_metrics([state(ONE, RELAY), state(TWO, None)], lost_events=4)
    samples = {
        (sample.name, sample.labels.get("enclave")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["cloister_host_ready", str(ONE)] == 1
    assert samples["cloister_host_ready", str(TWO)] == 0
    assert samples["cloister_host_boots_total", str(TWO)] == 3
    assert samples["cloister_host_failures_total", str(ONE)] == 2
    assert samples["cloister_host_events_lost_total", None] == 4
    assert samples["cloister_relay_connections_total", str(ONE)] == 7
    assert ("cloister_relay_connections_total", str(TWO)) not in samples
