"""Events on their way to a platform that may be away."""

import threading
import time
import uuid

from cloister.errors import PermissionRefused, TransportError
from cloister.host.reporting import MAX_KEPT, Reporter

ENCLAVE, OTHER = uuid.uuid4(), uuid.uuid4()


class Scripted:
    """Takes events, or is away, or refuses."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.is_away = threading.Event()
        self.tried = threading.Event()
        self.refuses: set[str] = set()
        self.breaks: set[str] = set()
        self.is_slow: threading.Event | None = None

    def record(self, _: uuid.UUID, kind: str, __: str) -> None:
        """Takes one."""
        self.tried.set()
        if self.is_slow is not None:
            assert self.is_slow.wait(30)
        if kind in self.breaks:
            raise ZeroDivisionError
        if self.is_away.is_set():
            raise TransportError("away")
        if kind in self.refuses:
            raise PermissionRefused("no")
        self.told.append(kind)


def test_events_are_told_in_order_and_all_before_the_end() -> None:
    platform = Scripted()
    reporter = Reporter(platform.record)
    reporter.start()
    for number in range(20):
        reporter.add(ENCLAVE, f"k{number}", "")
    reporter.stop()
    assert platform.told == [f"k{number}" for number in range(20)]
    assert reporter.lost == 0


def test_what_is_refused_is_counted_and_not_in_the_way() -> None:
    platform = Scripted()
    platform.refuses = {"k1"}
    reporter = Reporter(platform.record)
    reporter.start()
    for number in range(3):
        reporter.add(ENCLAVE, f"k{number}", "")
    reporter.stop()
    assert (platform.told, reporter.lost) == (["k0", "k2"], 1)


def test_while_the_platform_is_away_the_newest_of_each_enclave_are_kept() -> None:
    platform = Scripted()
    platform.is_away.set()
    reporter = Reporter(platform.record, pause_s=0.01)
    reporter.start()
    reporter.add(OTHER, "quiet", "")
    for number in range(MAX_KEPT + 10):
        reporter.add(ENCLAVE, f"k{number}", "")
    assert platform.tried.wait(10)
    platform.is_away.clear()
    reporter.stop()
    assert platform.told == ["quiet", *(f"k{number}" for number in range(10, MAX_KEPT + 10))]
    assert reporter.lost == 10


def test_a_mistake_in_telling_is_counted_and_ends_nothing() -> None:
    platform = Scripted()
    reporter = Reporter(platform.record)
    platform.breaks = {"k0"}
    reporter.start()
    for number in range(2):
        reporter.add(ENCLAVE, f"k{number}", "")
    reporter.stop()
    assert (platform.told, reporter.lost) == (["k1"], 1)


def test_a_stop_does_not_wait_for_a_platform_that_is_away() -> None:
    platform = Scripted()
    platform.is_away.set()
    reporter = Reporter(platform.record, pause_s=60, stop_s=60)
    reporter.start()
    reporter.add(ENCLAVE, "k", "")
    assert platform.tried.wait(10)
    begun = time.monotonic()
    reporter.stop()
    assert time.monotonic() - begun < 10
    assert (platform.told, reporter.lost) == ([], 1)


def test_a_stop_waits_for_a_slow_platform_for_as_long_as_said() -> None:
    platform = Scripted()
    platform.is_slow = threading.Event()
    reporter = Reporter(platform.record, stop_s=0.2)
    reporter.start()
    for number in range(3):
        reporter.add(ENCLAVE, f"k{number}", "")
    assert platform.tried.wait(10)
    begun = time.monotonic()
    reporter.stop()
    assert 0.2 <= time.monotonic() - begun < 10
    assert reporter.lost == 3
    platform.is_slow.set()
