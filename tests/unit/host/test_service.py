"""A service decides: what runs, what takes over, what is tried again, and what is ended.

Its boots are scripted; the relay, the listening socket and the threads are real.
"""

import contextlib
import dataclasses
import datetime as dt
import itertools
import pathlib
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import pytest

from cloister.errors import RunnerError, TransportError
from cloister.host.health import Health
from cloister.host.images import Image, Images
from cloister.host.pauses import Pauses
from cloister.host.service import MAX_ENDING, Service, ServiceOptions
from cloister.runners import Exit

ENCLAVE = uuid.uuid4()
SOON = dt.timedelta(milliseconds=20)
PATIENCE_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class Deployed:
    """An active deployment."""

    id: str
    pcrs: Mapping[int, bytes]


def deployed(name: str) -> Deployed:
    register = name.encode().ljust(48, b"\0")
    return Deployed(name, {0: register, 1: register, 2: register})


def image(name: str) -> Image:
    pcrs = deployed(name).pcrs
    return Image(path=pathlib.Path(f"{name}.eif"), enclave=ENCLAVE, pcrs=pcrs, drain_ms=1000)


class ScriptedBoot:
    """A boot that does as it is told."""

    def __init__(self, world: "World", made_of: Image) -> None:
        self.name = made_of.path.stem
        self.ingress = "tcp:127.0.0.1:9"
        self.pcrs = world.swapped.get(self.name, made_of.pcrs)
        self._script = world.scripts.get(self.name, "ready")
        self._holds = world.holds_drains
        self._ended = threading.Event()
        self.is_closed = False
        self.health = Health(ready=True, state="ready", reason=None)

    def launch(self) -> None:
        """Starts, or does not."""
        if self._script == "no descriptors":
            self.is_closed = True
            raise OSError(24, "Too many open files")

    def is_ready(self) -> bool:
        """Whether it is."""
        if self._script == "broken":
            raise RunnerError("it does not become ready\n  last line of its console")
        if self._script == "raises":
            raise ZeroDivisionError
        return self._script == "ready"

    def ended(self, _: float) -> Exit | None:
        """How it ended."""
        return Exit(code=1, signal=None) if self._ended.is_set() else None

    def die(self) -> None:
        """Ends by itself."""
        self.health = Health(ready=False, state="unknown", reason="no answer")
        self._ended.set()

    def drain(self) -> Exit:
        """Ends when it may."""
        assert self._holds.wait(PATIENCE_SECONDS)
        if self._script == "drain fails":
            raise RunnerError("no drain")
        self._ended.set()
        return Exit(code=0, signal=None)

    def failure(self, what: str) -> RunnerError:
        """An error."""
        return RunnerError(what)

    def kill(self) -> None:
        """Ends at once."""
        self._ended.set()
        self._holds.set()

    def close(self) -> None:
        """Is closed."""
        self.is_closed = True


class World:
    """A service and what it meets."""

    def __init__(self) -> None:
        self.wanted: Sequence[Deployed] | Exception = []
        self.images: list[Image] = []
        self.scripts: dict[str, str] = {}
        self.swapped: dict[str, Mapping[int, bytes]] = {}
        self.holds_drains = threading.Event()
        self.holds_drains.set()
        self.boots: list[ScriptedBoot] = []
        self.events: list[tuple[str, str]] = []
        self.listen = "tcp:127.0.0.1:0"
        self.service: Service = cast("Service", None)

    def start(self, **options: Any) -> None:
        """Starts the service."""
        given = {"first_pause": SOON, "longest_pause": dt.timedelta(seconds=60)} | options
        self.service = Service(
            ServiceOptions(enclave=ENCLAVE, listen=self.listen, look_every=SOON, **given),
            images=cast("Images", self),
            platform=cast("Any", self),
            make_boot=cast("Any", self._make),
            events=lambda _, kind, text: self.events.append((kind.removeprefix("host."), text)),
        )
        self.service.start()

    def of(self, _: uuid.UUID, deployments: Sequence[Deployed]) -> list[tuple[Deployed, Image]]:
        """Images that are here."""
        return [(one, found) for one in deployments for found in self.images if found.is_of(one)]

    def active_deployments(self, _: uuid.UUID) -> Sequence[Deployed]:
        """What the platform says."""
        if isinstance(self.wanted, Exception):
            raise self.wanted
        return self.wanted

    def runs(self, name: str | None) -> Callable[[], bool]:
        """Whether this one serves."""
        return lambda: self.service.state.deployment == name

    def count(self, name: str) -> int:
        """How often it was started."""
        return sum(one.name == name for one in self.boots)

    def _make(self, made_of: Image) -> ScriptedBoot:
        self.boots.append(ScriptedBoot(self, made_of))
        return self.boots[-1]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    if made.service is not None:
        made.service.kill()
        made.service.stop()
        assert all(one.is_closed for one in made.boots), "every boot is closed at the end"


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def test_the_newest_deployment_whose_image_is_here_runs(world: World) -> None:
    world.wanted = [deployed("new"), deployed("old")]
    world.images = [image("old")]
    world.start()
    wait_for(world.runs("old"))
    world.images = [image("old"), image("new")]
    wait_for(world.runs("new"))
    wait_for(lambda: world.boots[0].is_closed)
    assert [one.name for one in world.boots] == ["old", "new"]
    assert not world.boots[1].is_closed
    world.wanted = [deployed("old")]
    wait_for(world.runs("old"))


def test_what_does_not_become_ready_leaves_what_runs_alone_and_is_tried_again(
    world: World,
) -> None:
    world.wanted, world.images = [deployed("old")], [image("old"), image("new")]
    world.start()
    wait_for(world.runs("old"))
    world.scripts["new"] = "broken"
    world.wanted = [deployed("new"), deployed("old")]
    wait_for(lambda: world.count("new") >= 3)
    assert world.runs("old")()
    assert not world.boots[0].is_closed
    failed = [text for kind, text in world.events if kind == "failed"]
    assert failed[0] == (
        "new: old goes on, again in 0 s: it does not become ready | last line of its console"
    )
    world.scripts["new"] = "ready"
    wait_for(world.runs("new"))


def test_an_older_deployment_runs_while_the_newest_cannot(world: World) -> None:
    world.wanted, world.images = [deployed("old")], [image("old"), image("new")]
    world.start(first_pause=dt.timedelta(seconds=30))
    wait_for(world.runs("old"))
    world.scripts["new"] = "broken"
    world.wanted = [deployed("new"), deployed("old")]
    wait_for(lambda: world.count("new") == 1)
    # It ends while the newest is in its pause, and is the only one that may be tried.
    world.boots[0].die()
    wait_for(lambda: world.boots[0].is_closed)
    world.service.restart()  # ends the pause of what has just ended
    wait_for(world.runs("old"))
    assert world.count("old") == 2


def test_an_end_is_noticed_while_another_starts(world: World) -> None:
    world.wanted, world.images = [deployed("old")], [image("old"), image("new")]
    world.start()
    wait_for(world.runs("old"))
    world.scripts["new"] = "starting"
    world.wanted = [deployed("new"), deployed("old")]
    wait_for(lambda: world.count("new") == 1)
    world.boots[0].die()
    wait_for(world.runs(None))
    assert any("the enclave ended" in text for _, text in world.events)


def test_a_start_that_is_not_wanted_any_more_is_given_up(world: World) -> None:
    world.wanted, world.images = [deployed("slow")], [image("slow"), image("good")]
    world.scripts["slow"] = "starting"
    world.start()
    wait_for(lambda: world.count("slow") == 1)
    world.wanted = [deployed("good")]
    wait_for(world.runs("good"))
    assert world.boots[0].is_closed


def test_a_pause_is_that_of_one_deployment(world: World) -> None:
    world.wanted, world.images = [deployed("bad")], [image("bad"), image("good")]
    world.scripts["bad"] = "broken"
    world.start(first_pause=dt.timedelta(seconds=30))
    wait_for(lambda: world.service.state.failures == 1)
    world.wanted = [deployed("good"), deployed("bad")]
    wait_for(world.runs("good"))
    assert world.count("bad") == 1


def test_an_enclave_that_ends_soon_after_it_was_ready_is_started_after_growing_pauses(
    world: World,
) -> None:
    world.wanted, world.images = [deployed("one")], [image("one")]
    world.start(first_pause=dt.timedelta(milliseconds=100))
    begun = []
    for number in range(1, 5):
        wait_for(lambda number=number: world.service.state.boots == number)
        begun.append(time.monotonic())
        world.boots[-1].die()
        wait_for(lambda: world.boots[-1].is_closed)
    lengths = [later - earlier for earlier, later in itertools.pairwise(begun)]
    for length, least in zip(lengths, (0.1, 0.2, 0.4), strict=True):
        assert length >= least


def test_a_platform_that_does_not_answer_changes_nothing(world: World) -> None:
    world.wanted = TransportError("away")
    world.images = [image("one")]
    world.start()
    wait_for(lambda: bool(world.events))
    world.wanted = TransportError("away, in other words")
    time.sleep(0.5)
    assert world.service.state.knows_platform is False
    assert world.service.state.state == "waiting"
    world.wanted = [deployed("one")]
    wait_for(world.runs("one"))
    world.wanted = RuntimeError("nonsense")
    wait_for(lambda: not world.service.state.knows_platform)
    world.boots[0].die()
    wait_for(lambda: world.count("one") == 2)
    wait_for(world.runs("one"))
    told = [text for kind, text in world.events if kind == "waiting"]
    assert [text.partition(": ")[2] for text in told] == ["away", "nonsense"]


def test_without_a_deployment_what_runs_is_drained(world: World) -> None:
    world.wanted, world.images = [deployed("one")], [image("one")]
    world.start()
    wait_for(world.runs("one"))
    world.wanted = []
    wait_for(lambda: world.boots[0].is_closed)
    assert world.runs(None)()
    assert world.service.state.reason == "no deployment of this enclave is active"
    assert [kind for kind, _ in world.events][-1] == "ended"


def test_an_ended_deployment_goes_on_until_another_takes_over_and_only_while_it_serves(
    world: World,
) -> None:
    world.wanted, world.images = [deployed("old")], [image("old")]
    world.start(over_after=dt.timedelta(seconds=1))
    wait_for(world.runs("old"))
    ready = world.boots[0].health
    world.wanted = [deployed("new")]
    wait_for(lambda: any("no image here" in text for _, text in world.events))
    # One answer that is missing says nothing.
    world.boots[0].health = Health(ready=False, state="unknown", reason="no answer")
    time.sleep(0.6)
    world.boots[0].health = ready
    time.sleep(0.6)
    world.boots[0].health = Health(ready=False, state="provisioning", reason="no bundle")
    time.sleep(0.6)
    assert world.runs("old")()
    wait_for(lambda: world.boots[0].is_closed)
    assert world.runs(None)()


def test_a_restart_replaces_the_boot_and_is_repeated_until_it_was(world: World) -> None:
    world.wanted, world.images = [deployed("one")], [image("one")]
    world.start()
    wait_for(world.runs("one"))
    world.scripts["one"] = "broken"
    world.service.restart()
    wait_for(lambda: world.service.state.failures >= 2)
    assert not world.boots[0].is_closed
    world.scripts["one"] = "ready"
    wait_for(lambda: world.service.state.boots == 2)
    wait_for(lambda: world.boots[0].is_closed)
    count = len(world.boots)
    time.sleep(0.5)
    assert len(world.boots) == count, "once is enough"


def test_a_restart_is_not_lost_to_a_newer_image_that_does_not_start(world: World) -> None:
    world.wanted, world.images = [deployed("old")], [image("old"), image("new")]
    world.start(first_pause=dt.timedelta(seconds=1))
    wait_for(world.runs("old"))
    world.scripts["new"] = "broken"
    world.wanted = [deployed("new"), deployed("old")]
    wait_for(lambda: world.count("new") == 1)
    world.service.restart()
    wait_for(lambda: world.count("old") == 2)
    wait_for(lambda: world.boots[0].is_closed)


def test_another_copy_of_an_image_is_tried(world: World) -> None:
    good = image("one")
    bad = dataclasses.replace(good, path=pathlib.Path("bad.eif"))
    world.scripts["bad"] = "broken"
    world.wanted, world.images = [deployed("one")], [bad, good]
    world.start(first_pause=dt.timedelta(seconds=30))
    wait_for(world.runs("one"))
    assert [one.name for one in world.boots] == ["bad", "one"]


def test_a_mistake_at_the_takeover_closes_the_boot(world: World) -> None:
    world.wanted, world.images = [deployed("one")], [image("one")]
    world.scripts["one"] = "raises"
    world.start(first_pause=dt.timedelta(seconds=30))
    wait_for(lambda: bool(world.boots) and world.boots[0].is_closed)
    assert any("ZeroDivisionError" in text for _, text in world.events)


def test_what_has_ended_is_started_again_whatever_drains(world: World) -> None:
    world.wanted, world.images = [deployed("one")], [image("one")]
    world.holds_drains.clear()
    world.start()
    for number in range(1, MAX_ENDING + 1):
        wait_for(lambda number=number: world.service.state.boots == number)
        world.service.restart()
    wait_for(lambda: world.service.state.boots == MAX_ENDING + 1)
    world.boots[-1].die()
    wait_for(lambda: world.service.state.boots == MAX_ENDING + 2)


def test_few_drain_at_one_time(world: World) -> None:
    world.wanted, world.images = [deployed("one")], [image("one")]
    world.holds_drains.clear()
    world.start()
    for number in range(1, MAX_ENDING + 2):
        wait_for(lambda number=number: world.service.state.boots == number)
        world.service.restart()
    wait_for(lambda: any("those before" in text for _, text in world.events))
    assert len(world.boots) == MAX_ENDING + 1
    world.holds_drains.set()
    wait_for(lambda: world.service.state.boots == MAX_ENDING + 2)


def test_a_drain_that_fails_closes_the_boot(world: World) -> None:
    world.wanted, world.images = [deployed("one")], [image("one")]
    world.scripts["one"] = "ready"
    world.start()
    wait_for(world.runs("one"))
    world.boots[0]._script = "drain fails"
    world.wanted = []
    wait_for(lambda: world.boots[0].is_closed)
    wait_for(lambda: ("ended", "one: no drain") in world.events)


@pytest.mark.parametrize("script", ["no descriptors", "swapped"])
def test_what_goes_wrong_in_a_start_is_said_and_tried_again(world: World, script: str) -> None:
    world.wanted, world.images = [deployed("one")], [image("one")]
    if script == "swapped":
        world.swapped["one"] = {0: b"\1" * 48, 1: b"\2" * 48, 2: b"\3" * 48}
    else:
        world.scripts["one"] = script
    world.start()
    wait_for(lambda: world.service.state.failures >= 2)
    expected = {"no descriptors": "Too many open files", "swapped": "was changed between"}
    assert any(expected[script] in text for _, text in world.events)
    world.scripts.clear()
    world.swapped.clear()
    wait_for(world.runs("one"))


def test_a_mistake_of_the_host_ends_no_enclave(world: World) -> None:
    world.wanted, world.images = [deployed("one")], [image("one")]
    world.start()
    wait_for(world.runs("one"))
    world.images = cast("Any", None)
    wait_for(lambda: any("TypeError" in text for _, text in world.events))
    assert world.runs("one")()
    world.images = [image("one"), image("two")]
    world.wanted = [deployed("two"), deployed("one")]
    wait_for(world.runs("two"))


def test_a_port_in_use_is_found_before_an_enclave_is_started(world: World) -> None:
    with contextlib.ExitStack() as ends:
        taken = ends.enter_context(socket.create_server(("127.0.0.1", 0)))
        world.listen = f"tcp:127.0.0.1:{taken.getsockname()[1]}"
        world.wanted, world.images = [deployed("one")], [image("one")]
        world.start()
        wait_for(lambda: world.service.state.failures >= 2)
        assert not world.boots
    wait_for(world.runs("one"))


def test_a_kill_ends_a_drain(world: World) -> None:
    world.wanted, world.images = [deployed("one")], [image("one")]
    world.holds_drains.clear()
    world.start()
    wait_for(world.runs("one"))
    stopping = threading.Thread(target=world.service.stop)
    stopping.start()
    stopping.join(0.5)
    assert stopping.is_alive()
    world.service.kill()
    stopping.join(PATIENCE_SECONDS)
    assert not stopping.is_alive()


def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_good_while() -> None:
    pauses = Pauses(first=dt.timedelta(seconds=1), longest=dt.timedelta(seconds=60))
    lengths = [pauses.failed("a", now_s=float(now)) for now in range(9)]
    assert lengths == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert not pauses.is_over("a", now_s=67.9)
    assert pauses.is_over("a", now_s=68)
    assert pauses.is_over("b", now_s=0)
    assert pauses.failed("a", now_s=100, worked_s=59.9) == 60
    assert pauses.failed("a", now_s=200, worked_s=60) == 1
    pauses.end_all()
    assert pauses.is_over("a", now_s=200)
    assert pauses.failed("a", now_s=200) == 2
    pauses.forget_others({"b"})
    assert pauses.failed("a", now_s=201) == 1
    assert Pauses(first=SOON, longest=SOON).failed("x", now_s=0) == SOON.total_seconds()
