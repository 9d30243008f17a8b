"""One measurement, and the rule by which it counts.

Proxies take turns, round by round, so that a disturbance meets all of them. A loop of fixed work is
timed before and after each measurement; when either one took longer than :data:`DISTURBED` times
the best loop of the whole run, the measurement is dropped and made again, at most :data:`ATTEMPTS`
times altogether, and what the last attempt gave is kept. The figure of a proxy is the least CPU
time of its rounds; rates and latencies are its best ones.
"""

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping

from bench.load.clients import Load
from bench.load.proxies import Proxy

DISTURBED = 1.25
ATTEMPTS = 3

Client = Callable[[Proxy], Load]


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """What a proxy costs for one operation of a row.

    Args:
        micros: CPU time of the proxy, microseconds, least of the rounds.
        rate: Operations per second, best of the rounds.
        p50: Median latency in microseconds, best of the rounds, where the client tells it.
        p99: The 99th percentile, likewise.
        disturbed: Rounds that no attempt could measure undisturbed.
    """

    micros: float
    rate: float
    p50: float | None
    p99: float | None
    disturbed: int


class Meter:
    """Measures rows by the rule above.

    Args:
        rounds: Turns of each proxy.
    """

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._best_loop = min(_loop() for _ in range(10))
        self.attempts = 0
        self.dropped = 0

    def row(self, name: str, client: Client, proxies: list[Proxy]) -> Mapping[str, Figure | None]:
        """A figure a proxy; none for one that does not speak what the row needs."""
        figures: dict[str, list[Figure]] = {proxy.name: [] for proxy in proxies}
        for turn in range(self._rounds):
            for proxy in proxies:
                figure = self._once(client, proxy)
                if figure is not None:
                    figures[proxy.name].append(figure)
                    line = f"{name}, round {turn}, {proxy.name}: {figure.micros:.2f} us"
                    print(line, file=sys.stderr)
        return {name: _best(many) for name, many in figures.items()}

    def _once(self, client: Client, proxy: Proxy) -> Figure | None:
        figure = None
        for _ in range(ATTEMPTS):
            figure = self._attempt(client, proxy)
            if figure is None or not figure.disturbed:
                break
            self.dropped += 1
        else:
            # What the last attempt gave is kept.
            self.dropped -= 1
        return figure

    def _attempt(self, client: Client, proxy: Proxy) -> Figure | None:
        before = self._calibrate()
        cpu, started = proxy.account.seconds(), time.monotonic()
        load = client(proxy)
        elapsed, used = time.monotonic() - started, proxy.account.seconds() - cpu
        if load.operations == 0:
            return None
        slowest = max(before, self._calibrate())
        self.attempts += 1
        return Figure(
            micros=used / load.operations * 1e6,
            rate=load.operations / elapsed,
            p50=load.p50,
            p99=load.p99,
            disturbed=int(slowest > self._best_loop * DISTURBED),
        )

    def _calibrate(self) -> float:
        took = _loop()
        self._best_loop = min(self._best_loop, took)
        return took


def _best(many: list[Figure]) -> Figure | None:
    if not many:
        return None
    p50s = [figure.p50 for figure in many if figure.p50 is not None]
    p99s = [figure.p99 for figure in many if figure.p99 is not None]
    return Figure(
        micros=min(figure.micros for figure in many),
        rate=max(figure.rate for figure in many),
        p50=min(p50s, default=None),
        p99=min(p99s, default=None),
        disturbed=sum(figure.disturbed for figure in many),
    )


def _loop() -> float:
    """Seconds that fixed work takes: longer when somebody else wants the CPU."""
    started, total = time.perf_counter(), 0
    for number in range(300_000):
        total += number & 7
    assert total > 0
    return time.perf_counter() - started
