"""Keeps one enclave running: the image that the platform has as its newest active deployment.

A new image is started beside the one that runs. When it is ready, new clients go to it, and the old
one finishes what it has and ends; when it does not become ready, it is ended, and nobody has
noticed. What ends by itself, or does not become ready, is started again after growing pauses;
meanwhile an older deployment that is active too may run.

A platform that is away changes nothing here. One that says that nothing is to run ends what runs;
an image whose deployment has ended goes on until another takes over, for as long as its bundle
lets it serve.
"""

import dataclasses
import datetime as dt
import threading
import time
import uuid
from collections.abc import Callable

from cloister.errors import CloisterError, RunnerError
from cloister.host.boot import LAST_BYTES_SECONDS, Boot, described
from cloister.host.desired import Desired
from cloister.host.images import Image, Images
from cloister.host.listening import check_listen
from cloister.host.pauses import Pauses
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
        over_after: How long an enclave whose deployment has ended may be not ready before it is
            taken for one whose bundle has ended.
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
    over_after: dt.timedelta = dt.timedelta(seconds=30)


@dataclasses.dataclass(frozen=True, slots=True)
class _Started:
    """A boot of an image, and times of the monotonic clock.

    Args:
        deployment: What it is of.
        image: The image's path.
        boot: The boot.
        launched_s: When it was started.
        since_s: Since when it serves, or starts.
    """

    deployment: str
    image: str
    boot: Boot
    launched_s: float
    since_s: float


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
        self._make_boot = make_boot
        self._events = events
        self._news = threading.Event()
        self._desired = Desired(
            lambda: platform.active_deployments(options.enclave),
            every=options.look_every,
            changed=self._news.set,
        )
        self._pauses = Pauses(first=options.first_pause, longest=options.longest_pause)
        self._relay: Relay | None = None
        self._running: _Started | None = None
        self._starting: _Started | None = None
        self._ending: list[Boot] = []
        self._ending_threads: list[threading.Thread] = []
        self._noted: dict[str, str] = {}
        self._noted_kind: str | None = None
        self._boots = self._failures = 0
        self._stopping = threading.Event()
        self._is_killed = False
        self._restart_asked_s = -float("inf")
        self._end_pauses = threading.Event()
        self._unready_since_s: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"enclave-{options.enclave}")

    def start(self) -> None:
        """Begins; what is to run is found out and started in the background."""
        self._desired.start()
        self._thread.start()

    def restart(self) -> None:
        """Asks for a new boot in the place of the one that runs, and ends every pause."""
        self._restart_asked_s = time.monotonic()
        self._end_pauses.set()
        self._news.set()

    def ask_to_stop(self) -> None:
        """Begins to stop: clients first. :meth:`stop` waits for its end."""
        self._stopping.set()
        self._desired.stop()
        self._news.set()

    def stop(self) -> None:
        """Lets the enclave finish what is in flight, and ends everything."""
        self.ask_to_stop()
        if self._thread.ident is not None:
            self._thread.join()

    def kill(self) -> None:
        """Ends its enclaves at once; :meth:`stop`, wherever it waits, returns soon."""
        self._is_killed = True
        self.ask_to_stop()
        started = [one.boot for one in (self._starting, self._running) if one is not None]
        for boot in [*self._ending, *started]:
            boot.kill()

    @property
    def state(self) -> ServiceState:
        """What it does now."""
        running, relay, desired = self._running, self._relay, self._desired
        health = None if running is None else running.boot.health
        if health is not None:
            state, reason = health.state, health.reason
        else:
            state = "waiting" if self._starting is None else "starting"
            before = NOT_ASKED if desired.deployments is None else None
            reason = next(iter([*self._noted.values()][-1:]), before)
        return ServiceState(
            enclave=self._options.enclave,
            address=None if relay is None else relay.address,
            deployment=None if running is None else running.deployment,
            is_ready=health is not None and health.ready,
            state=state,
            reason=reason,
            knows_platform=desired.deployments is not None and desired.problem is None,
            boots=self._boots,
            failures=self._failures,
            relay=None if relay is None else relay.stats(),
        )

    def enclave_metrics(self) -> bytes | None:
        """What the enclave that serves says on its own ``/metrics``."""
        running = self._running
        return None if running is None else running.boot.metrics()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._turn()
                self._news.wait(LOOK_SECONDS)
                self._news.clear()
        finally:
            self._end_all()

    def _turn(self) -> None:
        """One look at everything. What goes wrong unforeseen is said, and the next look comes."""
        try:
            self._reap()
            self._look_at_starting()
            self._look_at_desired()
        except Exception as problem:  # noqa: BLE001 - enclaves do not end for a mistake of ours
            self._failed(HOST_ITSELF, "", _as_error(problem))
            self._stopping.wait(MISTAKE_SECONDS)

    def _reap(self) -> None:
        """Notices an enclave that has ended."""
        running = self._running
        ended = None if running is None else running.boot.ended(0)
        if running is None or ended is None:
            return
        self._running = None
        problem = running.boot.failure(f"the enclave ended ({described(ended)})")
        running.boot.close()
        worked_s = time.monotonic() - running.since_s
        self._failed(running.deployment, running.image, problem, worked_s=worked_s)

    def _look_at_starting(self) -> None:
        """Lets an enclave take over that has become ready, and ends one that does not."""
        starting = self._starting
        if starting is None:
            return
        try:
            if not starting.boot.is_ready():
                return
            self._turn_to(starting.boot)
        except Exception as problem:  # noqa: BLE001 - whatever it is, this boot does not serve
            self._starting = None
            starting.boot.close()
            self._failed(starting.deployment, starting.image, _as_error(problem))
            return
        if self._running is not None:
            self._end_in_background(self._running)
        self._running = dataclasses.replace(starting, since_s=time.monotonic())
        self._starting = None
        self._unready_since_s = None
        self._boots += 1
        self._noted.pop("failed", None)
        self._report("ready", starting.deployment, f"serves at {self._address()}")

    def _look_at_desired(self) -> None:
        """Starts, gives up or ends what is not as the platform wants it."""
        desired = self._desired
        problem = desired.problem
        if problem is None:
            self._noted.pop("platform", None)
        elif desired.kind != self._noted_kind or "platform" not in self._noted:
            self._noted_kind = desired.kind
            self._note("platform", f"the platform does not say what is to run: {problem}")
        wanted = desired.deployments
        if wanted is None:
            return
        self._end_what_is_over(wanted)
        found = self._images.of(self._options.enclave, wanted)
        if found is None:
            return  # nobody has looked yet
        names = {_pause_of(deployment.id, str(image.path)) for deployment, image in found}
        self._pauses.forget_others(names | {_pause_of(HOST_ITSELF, "")})
        if wanted and not found:
            self._note("image", f"no image here is that of {wanted[0].id}")
        else:
            self._noted.pop("image", None)
        self._start(self._choice(found))

    def _end_what_is_over(self, wanted: tuple[ActiveDeployment, ...]) -> None:
        """Ends an enclave whose deployment has ended, and whose clients nobody else could serve."""
        if wanted:
            self._noted.pop("none", None)
        else:
            self._note("none", NOTHING_ACTIVE)
        running = self._running
        if running is None or running.deployment in {one.id for one in wanted}:
            return
        # With others to come it goes on until one of them takes over; its bundle ends before long.
        if not wanted or self._is_over(running):
            self._report("stopping", running.deployment, "the deployment is not active any more")
            self._end_in_background(running)
            self._running = None

    def _is_over(self, running: _Started) -> bool:
        """Whether an enclave has not served for so long that its bundle must have ended."""
        if running.boot.health.ready:
            self._unready_since_s = None
            return False
        now = time.monotonic()
        self._unready_since_s = now if self._unready_since_s is None else self._unready_since_s
        return now - self._unready_since_s >= self._options.over_after.total_seconds()

    def _choice(
        self, found: list[tuple[ActiveDeployment, Image]]
    ) -> tuple[ActiveDeployment, Image] | None:
        """What is to serve: the newest that runs, starts, or may be tried; ``None``: nothing."""
        if self._end_pauses.is_set():
            self._end_pauses.clear()
            self._pauses.end_all()
        for deployment, image in found:
            if self._is_up(deployment) or self._may_try(deployment.id, str(image.path)):
                return deployment, image
        return None

    def _may_try(self, deployment: str, image: str) -> bool:
        return self._pauses.is_over(_pause_of(deployment, image), now_s=time.monotonic())

    def _is_up(self, deployment: ActiveDeployment) -> bool:
        return any(
            one is not None and one.deployment == deployment.id
            for one in (self._starting, self._running)
        )

    def _start(self, choice: tuple[ActiveDeployment, Image] | None) -> None:
        """Starts what is to serve, unless it does, and gives up what is not."""
        chosen = None if choice is None else choice[0].id
        starting, running = self._starting, self._running
        if starting is not None:
            if starting.deployment == chosen:
                return
            self._starting = None
            starting.boot.close()
            self._report("ended", starting.deployment, "its start was given up for another")
        if choice is None:
            return
        if running is not None and running.deployment == chosen:
            is_due = running.launched_s < self._restart_asked_s
            if not (is_due and self._may_try(chosen, str(choice[1].path))):
                return
        if running is not None and len(self._ending) >= MAX_ENDING:
            self._note("ending", "those before have to end first")
            return
        self._launch(*choice)

    def _launch(self, deployment: ActiveDeployment, image: Image) -> None:
        self._report("starting", deployment.id, f"from {image.path.name}")
        launched_s = time.monotonic()
        try:
            if self._relay is None:
                check_listen(self._options.listen)
            boot = self._make_boot(image)
            boot.launch()
        except Exception as problem:  # noqa: BLE001 - no descriptors, no memory: tried again
            self._failed(deployment.id, str(image.path), _as_error(problem))
            return
        if any(boot.pcrs.get(index) != image.pcrs[index] for index in MEASURED):
            boot.close()
            text = f"`{image.path}` was changed between its measurement and its start"
            self._failed(deployment.id, str(image.path), RunnerError(text))
            return
        self._starting = _Started(
            deployment.id, str(image.path), boot, launched_s, time.monotonic()
        )

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

    def _failed(
        self, deployment: str, image: str, problem: CloisterError, *, worked_s: float = 0
    ) -> None:
        self._failures += 1
        name, now = _pause_of(deployment, image), time.monotonic()
        pause_s = self._pauses.failed(name, now_s=now, worked_s=worked_s)
        running = self._running
        goes_on = "" if running is None else f"{running.deployment} goes on, "
        self._note("failed", f"{deployment}: {goes_on}again in {pause_s:.0f} s: {problem.message}")

    def _end_in_background(self, old: _Started) -> None:
        """Drains and ends an enclave that new clients do not go to any more."""

        def end() -> None:
            try:
                # Who has just connected to it may still be on the way.
                self._stopping.wait(SETTLE_SECONDS)
                if self._is_killed:
                    old.boot.kill()
                text = described(old.boot.drain())
            except Exception as problem:  # noqa: BLE001 - it is closed below, whatever happened
                text = _as_error(problem).message
            finally:
                try:
                    old.boot.close()
                finally:
                    self._ending.remove(old.boot)
                    self._noted.pop("ending", None)
            self._report("ended", old.deployment, text)
            self._news.set()

        self._ending.append(old.boot)
        thread = threading.Thread(target=end, name=f"end-{old.deployment}")
        self._ending_threads = [one for one in self._ending_threads if one.is_alive()]
        self._ending_threads.append(thread)
        thread.start()

    def _end_all(self) -> None:
        starting, running, relay = self._starting, self._running, self._relay
        if starting is not None:
            starting.boot.close()
            self._starting = None
        draining: threading.Thread | None = None
        if relay is not None:
            # Ends with the last connection, or when the enclave has ended, below.
            draining = threading.Thread(target=relay.drain, args=(LONGEST_DRAIN,), name="drain")
            draining.start()
        if running is not None:
            self._end_in_background(running)
            self._running = None
        for ending in self._ending_threads:
            ending.join()
        if draining is not None:
            # What it said last may be on its way yet.
            draining.join(0 if self._is_killed else LAST_BYTES_SECONDS)
        if relay is not None:
            relay.stop()
        if draining is not None:
            draining.join()

    def _address(self) -> str:
        return "" if self._relay is None else self._relay.address

    def _note(self, what: str, text: str) -> None:
        """Says what is in the way, once for as long as it is."""
        if self._noted.get(what) != text:
            self._noted.pop(what, None)
            self._noted[what] = text
            self._say("failed" if what == "failed" else "waiting", text)

    def _report(self, what: str, deployment: str, text: str) -> None:
        self._say(what, f"{deployment}: {text}")

    def _say(self, what: str, text: str) -> None:
        lines = " | ".join(line.strip() for line in text.splitlines())
        shown = "".join(char if char.isprintable() else "�" for char in lines)
        self._events(self._options.enclave, f"host.{what}", shown[:MAX_EVENT_CHARACTERS])


def _pause_of(deployment: str, image: str) -> str:
    """Name of the pause of an image: a copy of it may work where it does not."""
    return f"{deployment} {image}"


def _as_error(problem: Exception) -> CloisterError:
    if isinstance(problem, CloisterError):
        return problem
    return RunnerError(f"{type(problem).__name__}: {problem}")


NOT_ASKED = "the platform was not asked yet"
NOTHING_ACTIVE = "no deployment of this enclave is active"
HOST_ITSELF = "the host itself"
MEASURED = (0, 1, 2)
LOOK_SECONDS = 0.25
SETTLE_SECONDS = 1.0
MISTAKE_SECONDS = 1.0
MAX_ENDING = 2
MAX_EVENT_CHARACTERS = 4000  # the platform's server takes 4096
LONGEST_DRAIN = dt.timedelta(hours=2)  # above every `[limits] drain_timeout`
