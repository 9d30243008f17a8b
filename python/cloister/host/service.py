"""Keeps one enclave running: the image that the platform has as its newest active deployment.

A new image is started beside the one that runs. When it is ready, new clients go to it, and the old
one finishes what it has and ends; when it does not become ready, it is ended, and nobody has
noticed. An enclave that ends by itself is started again, with growing pauses.

What is to run is asked every few seconds. A platform that is away changes nothing here: what runs
goes on, and is started again when it ends. One that says that nothing is to run ends what runs.
"""

import dataclasses
import datetime as dt
import threading
import time
import uuid
from collections.abc import Callable, Sequence

from cloister.errors import CloisterError, RunnerError, TransportError
from cloister.host.boot import Boot, described
from cloister.host.images import MEASURED, Image, Images
from cloister.host.ports import ActiveDeployment, EventSink, HostPlatform
from cloister.host.relay import Relay
from cloister.host.stats import ServiceState


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """One enclave of a host.

    Args:
        enclave: Its uuid.
        listen: Where its clients connect, ``tcp:HOST:PORT``.
        cpus: Processors; ``None`` for no bound.
        memory_bytes: Memory; ``None`` for no bound.
        max_connections: Clients at one time.
        workers: Threads of its relay.
        look_every: Time between two questions to the platform.
        first_pause: Pause after a first failure; doubled with each that follows.
        longest_pause: Longest pause.
    """

    enclave: uuid.UUID
    listen: str
    cpus: int | None = None
    memory_bytes: int | None = None
    max_connections: int = 10_000
    workers: int = 1
    look_every: dt.timedelta = dt.timedelta(seconds=5)
    first_pause: dt.timedelta = dt.timedelta(seconds=1)
    longest_pause: dt.timedelta = dt.timedelta(seconds=60)


@dataclasses.dataclass(frozen=True, slots=True)
class _Running:
    deployment: str
    boot: Boot
    since: float


class Service:
    """One enclave, kept running from :meth:`start` to :meth:`stop` on a thread of its own.

    Args:
        options: Which enclave, and where.
        images: What can be run here.
        platform: Asked what is to run.
        make_boot: Makes a boot of an image, not started.
        events: Told of what happens, as the enclave's own events are; must not block.
    """

    def __init__(
        self,
        options: ServiceOptions,
        *,
        images: Images,
        platform: HostPlatform,
        make_boot: Callable[[Image], Boot],
        events: EventSink,
    ) -> None:
        self._options = options
        self._images = images
        self._platform = platform
        self._make_boot = make_boot
        self._events = events
        self._relay: Relay | None = None
        self._running: _Running | None = None
        self._starting: Boot | None = None
        self._endings: list[threading.Thread] = []
        self._ending_boots: list[Boot] = []
        self._wanted: Sequence[ActiveDeployment] | None = None
        self._reason: str | None = "the platform was not asked yet"
        self._knows_platform = False
        self._boots = self._failures = self._failures_in_a_row = 0
        self._try_after = 0.0
        self._stopping = threading.Event()
        self._restart_asked = threading.Event()
        self._news = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"enclave-{options.enclave}")

    def start(self) -> None:
        """Begins; what is to run is found out and started in the background."""
        self._thread.start()

    def restart(self) -> None:
        """Asks for a new boot of the same image in the place of the one that runs."""
        self._restart_asked.set()
        self._news.set()

    def ask_to_stop(self) -> None:
        """Begins to stop: clients first. :meth:`stop` waits for its end."""
        self._stopping.set()
        self._news.set()
        starting = self._starting
        if starting is not None:
            starting.cancel()

    def stop(self) -> None:
        """Lets the enclave finish what is in flight, and ends everything."""
        self.ask_to_stop()
        if self._thread.ident is not None:
            self._thread.join()

    def kill(self) -> None:
        """Ends its enclaves at once; :meth:`stop`, wherever it waits, returns soon."""
        self.ask_to_stop()
        running = self._running
        for boot in [*self._ending_boots, *([] if running is None else [running.boot])]:
            boot.kill()

    @property
    def state(self) -> ServiceState:
        """What it does now."""
        running, relay = self._running, self._relay
        health = None if running is None else running.boot.health
        if health is not None:
            state, reason = health.state, health.reason
        else:
            state, reason = "waiting" if self._starting is None else "starting", self._reason
        return ServiceState(
            enclave=self._options.enclave,
            address=None if relay is None else relay.address,
            deployment=None if running is None else running.deployment,
            is_ready=health is not None and health.ready,
            state=state,
            reason=reason,
            knows_platform=self._knows_platform,
            boots=self._boots,
            failures=self._failures,
            relay=None if relay is None else relay.stats(),
        )

    def _run(self) -> None:
        asked_at = -float("inf")
        try:
            while not self._stopping.is_set():
                self._reap()
                now = time.monotonic()
                if now - asked_at >= self._options.look_every.total_seconds():
                    self._ask()
                    asked_at = now
                self._act()
                self._news.wait(LOOK_SECONDS)
                self._news.clear()
        except Exception as problem:  # noqa: BLE001 - the thread's end must not go unseen
            self._say("failed", f"the host gave up: {type(problem).__name__}: {problem}")
        self._end_all()

    def _reap(self) -> None:
        """Notices an enclave that has ended."""
        running = self._running
        ended = None if running is None else running.boot.ended(0)
        if running is None or ended is None:
            return
        self._running = None
        problem = running.boot.failure(f"the enclave ended ({described(ended)})")
        running.boot.close()
        if time.monotonic() - running.since >= self._options.longest_pause.total_seconds():
            self._failures_in_a_row = 0
        self._failed(running.deployment, problem)

    def _ask(self) -> None:
        """Asks the platform what is to run."""
        try:
            self._wanted = list(self._platform.active_deployments(self._options.enclave))
        except CloisterError as problem:
            # A refusal too: a token that was revoked stops no enclave, its bundle ends in time.
            if self._knows_platform or self._wanted is None:
                self._note(f"the platform does not say what is to run: {problem}")
            if isinstance(problem, TransportError) or self._wanted is None:
                self._knows_platform = False
            return
        self._knows_platform = True

    def _act(self) -> None:
        """Starts, replaces or ends what runs, when that is called for."""
        if self._wanted is None:
            return
        running = self._running
        if not self._wanted:
            if running is None:
                self._note(NOTHING_ACTIVE)
                return
            self._running, self._reason = None, NOTHING_ACTIVE
            self._report("stopping", running.deployment, NOTHING_ACTIVE)
            self._end_in_background(running)
            return
        found = self._images.newest(self._options.enclave, self._wanted)
        if found is None:
            self._note(
                f"no image here is that of {self._wanted[0].id} or another active deployment"
            )
            return
        deployment, image = found
        is_same = running is not None and running.deployment == deployment.id
        if is_same and not self._restart_asked.is_set():
            return
        if time.monotonic() < self._try_after:
            return
        self._restart_asked.clear()
        self._replace(deployment, image)

    def _replace(self, deployment: ActiveDeployment, image: Image) -> None:
        """Starts an image and lets it take over."""
        self._reason = None
        self._report("starting", deployment.id, f"from {image.path.name}")
        boot: Boot | None = None
        try:
            boot = self._make_boot(image)
            self._starting = boot
            if self._stopping.is_set():
                boot.cancel()
            boot.start()
            _check_started(boot, image)
            self._turn_to(boot)
        except CloisterError as problem:
            if boot is not None:
                boot.close()
            if not self._stopping.is_set():
                self._failed(deployment.id, problem)
            return
        finally:
            self._starting = None
        before, self._running = (
            self._running,
            _Running(deployment.id, boot, time.monotonic()),
        )
        self._boots += 1
        self._failures_in_a_row = 0
        self._reason = None
        self._report("ready", deployment.id, f"serves at {self._address()}")
        if before is not None:
            self._end_in_background(before)

    def _turn_to(self, boot: Boot) -> None:
        if self._relay is not None:
            self._relay.retarget(boot.ingress)
            return
        options = self._options
        relay = Relay(
            options.listen,
            boot.ingress,
            proxy_protocol=True,
            max_connections=options.max_connections,
            workers=options.workers,
        )
        relay.start()
        self._relay = relay

    def _failed(self, deployment: str, problem: CloisterError) -> None:
        self._failures += 1
        pause = self._options.first_pause * 2 ** min(self._failures_in_a_row, MAX_DOUBLINGS)
        pause = min(pause, self._options.longest_pause)
        self._failures_in_a_row += 1
        self._try_after = time.monotonic() + pause.total_seconds()
        goes_on = self._running
        and_now = (
            f"again in {pause.total_seconds():.0f} s"
            if goes_on is None
            else f"{goes_on.deployment} goes on, again in {pause.total_seconds():.0f} s"
        )
        self._reason = problem.message
        self._report("failed", deployment, f"{problem.message}; {and_now}")

    def _end_in_background(self, old: _Running) -> None:
        """Drains and ends an enclave that new clients do not go to any more."""

        def end() -> None:
            # Who has just connected to it may still be on the way.
            self._stopping.wait(SETTLE_SECONDS)
            ended = old.boot.drain()
            old.boot.close()
            self._ending_boots.remove(old.boot)
            self._report("ended", old.deployment, described(ended))

        self._endings = [one for one in self._endings if one.is_alive()]
        self._ending_boots.append(old.boot)
        thread = threading.Thread(target=end, name=f"end-{old.deployment}")
        thread.start()
        self._endings.append(thread)

    def _end_all(self) -> None:
        running, self._running = self._running, None
        relay = self._relay
        draining: threading.Thread | None = None
        if running is not None:
            if relay is not None:
                # Ends with the last connection, or when the enclave has ended, below.
                draining = threading.Thread(target=relay.drain, args=(LONGEST_DRAIN,), name="drain")
                draining.start()
            self._end_in_background(running)
        for ending in self._endings:
            ending.join()
        if relay is not None:
            relay.stop()
        if draining is not None:
            draining.join()

    def _address(self) -> str:
        return "" if self._relay is None else self._relay.address

    def _note(self, text: str) -> None:
        """Says why nothing new serves, once."""
        if text != self._reason:
            self._reason = text
            self._say("waiting", text)

    def _report(self, what: str, deployment: str, text: str) -> None:
        self._say(what, f"{deployment}: {text}")

    def _say(self, what: str, text: str) -> None:
        self._events(self._options.enclave, f"host.{what}", text)


def _check_started(boot: Boot, image: Image) -> None:
    """Whether what was started is what was measured: the file may have been swapped since.

    Raises:
        RunnerError: It is not.
    """
    if any(boot.pcrs.get(index) != image.pcrs[index] for index in MEASURED):
        raise RunnerError(f"`{image.path}` was changed between its measurement and its start")


NOTHING_ACTIVE = "no deployment of this enclave is active"
LOOK_SECONDS = 0.25
SETTLE_SECONDS = 1.0
MAX_DOUBLINGS = 16
LONGEST_DRAIN = dt.timedelta(hours=2)  # above every `[limits] drain_timeout`
