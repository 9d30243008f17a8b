"""The host daemon: every enclave of ``host.toml``, one platform, one place to look.

It holds no secret: a token that carries sealed bundles for these enclaves and may do nothing else,
logs and sealed objects. In production it refuses a state with more in it.
"""

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import pathlib
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Self

from cloister.errors import OutputError, StoreError
from cloister.host.boot import Boot
from cloister.host.enclave_metrics import merged
from cloister.host.images import Image, Images
from cloister.host.listening import check_listen
from cloister.host.metrics import MetricsServer, host_metrics
from cloister.host.ports import EventSink, HostPlatform
from cloister.host.reporting import Reporter
from cloister.host.service import Service, ServiceOptions
from cloister.host.stats import ServiceState

MakeBoot = Callable[[Image, ServiceOptions, EventSink], Boot]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DaemonOptions:
    """What a host runs.

    Args:
        services: The enclaves.
        images: Folder of the images.
        state: Folder of the lock, and of what others keep there.
        metrics_listen: Where ``/metrics`` and ``/health`` are; ``None``: nowhere.
    """

    services: Sequence[ServiceOptions]
    images: pathlib.Path
    state: pathlib.Path
    metrics_listen: str | None = None


class HostDaemon:
    """Runs from :meth:`start` to :meth:`stop`, or inside a ``with`` block.

    Args:
        options: What it runs.
        platform: Asked what is to run, and told what happens.
        make_boot: Makes a boot of an image, not started.
        say: Told of what happens: enclave, kind, text.
    """

    def __init__(
        self,
        options: DaemonOptions,
        *,
        platform: HostPlatform,
        make_boot: MakeBoot,
        say: EventSink,
    ) -> None:
        self._options = options
        self._say = say
        self._platform = platform
        self._reporter = Reporter(platform.record_event)
        self._images = Images(options.images, warn=self._warn)
        self._services = [self._service(one, make_boot) for one in options.services]
        self._ends = contextlib.ExitStack()
        self._metrics: MetricsServer | None = None

    def start(self) -> Self:
        """Starts everything; enclaves are started in the background.

        Raises:
            StoreError: Another host has the state.
            TransportError: An address cannot be listened on.
            PermissionRefused: It may not be.
        """
        try:
            self._ends.callback(_only_one(self._options.state))
            for service in self._options.services:
                check_listen(service.listen)
            if self._options.metrics_listen is not None:
                self._metrics = MetricsServer(
                    self._options.metrics_listen,
                    self._metrics_text,
                    health=self._health,
                )
                self._ends.enter_context(self._metrics)
            self._ends.callback(self._platform.close)
            self._ends.callback(self._reporter.stop)
            self._reporter.start()
            self._ends.callback(self._images.stop)
            self._images.start()
            for one in self._services:
                self._ends.callback(one.stop)
                one.start()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Drains every enclave at once and waits for them."""
        for service in self._services:
            service.ask_to_stop()
        self._ends.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def states(self) -> list[ServiceState]:
        """What each enclave does now."""
        return [service.state for service in self._services]

    @property
    def metrics_address(self) -> str | None:
        """Where ``/metrics`` is."""
        return None if self._metrics is None else self._metrics.address

    def restart(self) -> None:
        """Starts every enclave anew beside the one that runs, which then drains."""
        for service in self._services:
            service.restart()

    def kill(self) -> None:
        """Ends every enclave at once, also while :meth:`stop` waits for them."""
        for service in self._services:
            service.kill()

    def _service(self, options: ServiceOptions, make_boot: MakeBoot) -> Service:
        return Service(
            options,
            images=self._images,
            platform=self._platform,
            make_boot=lambda image: make_boot(image, options, self._told),
            events=self._told,
        )

    def _told(self, enclave: uuid.UUID, kind: str, message: str) -> None:
        # Whoever listens may be gone, with the terminal: no enclave ends for that.
        with contextlib.suppress(Exception):
            self._say(enclave, kind, message)
        self._reporter.add(enclave, kind, message)

    def _warn(self, text: str) -> None:
        """Says something of the host itself, which is nothing to a platform."""
        with contextlib.suppress(Exception):
            self._say(NOBODY, "host.image", text)

    def _metrics_text(self) -> str:
        """The host's own metrics, then those of its enclaves, asked at one time."""
        own = host_metrics(self.states, lost_events=self._reporter.lost)
        with concurrent.futures.ThreadPoolExecutor(MAX_ASKED) as asking:
            said = list(asking.map(Service.enclave_metrics, self._services))
        enclaves = (str(options.enclave) for options in self._options.services)
        texts = [(one, text) for one, text in zip(enclaves, said, strict=True) if text]
        return own + merged(texts)

    def _health(self) -> tuple[bool, dict[str, Any]]:
        states = self.states
        is_well = all(state.is_ready for state in states)
        shown = [
            {
                "enclave": str(state.enclave),
                "state": state.state,
                "ready": state.is_ready,
                "reason": state.reason,
                "deployment": state.deployment,
                "listen": state.address,
            }
            for state in states
        ]
        return is_well, {"state": "ready" if is_well else "not ready", "enclaves": shown}


def _only_one(state: pathlib.Path) -> Callable[[], None]:
    """Takes the lock of a host's state; what is returned gives it back.

    Raises:
        OutputError: The folder cannot be made.
        StoreError: Another host has it.
    """
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (state / LOCK_FILE).open("w")
    except OSError as problem:
        raise OutputError(f"`{state}` cannot be used: {problem.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise StoreError(
            f"another host uses `{state}`", hint="each host has a state folder of its own"
        ) from None
    return file.close


MAX_ASKED = 16
LOCK_FILE = "host.lock"
NOBODY = uuid.UUID(int=0)
"""What stands for the enclave in an event of the host itself."""
