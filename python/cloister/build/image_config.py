"""Settings of an image: what runs in it, as Docker keeps them."""

import dataclasses
import posixpath
import re
import signal
from typing import Any

from cloister.errors import MalformedImage

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of an image that sets none (moby/buildkit, ``util/system/path.go``)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck:
    """HEALTHCHECK: a command that says whether the application is well.

    The defaults are Docker's (Dockerfile reference, HEALTHCHECK).

    Args:
        test: As Docker keeps it: ``["CMD", program, …]`` or ``["CMD-SHELL", text]``.
        interval_ms: From the end of one run to the start of the next, milliseconds.
        timeout_ms: A run that takes longer has failed, milliseconds.
        start_period_ms: Failures do not count in this time after the start, milliseconds.
        start_interval_ms: The interval within the start period, milliseconds.
        retries: Failures in a row until the application is not well.
    """

    test: list[str]
    interval_ms: int = 30_000
    timeout_ms: int = 30_000
    start_period_ms: int = 0
    start_interval_ms: int = 5_000
    retries: int = 3


@dataclasses.dataclass(slots=True, kw_only=True)
class ImageConfig:
    """Settings of an image, as Docker keeps them.

    Args:
        env: Variables, in order.
        entrypoint: ENTRYPOINT.
        cmd: CMD.
        cwd: WORKDIR, absolute.
        user: USER as written.
        exposed: EXPOSE: port and protocol.
        labels: LABEL.
        stop_signal: STOPSIGNAL as written; ``None``: SIGTERM.
        healthcheck: HEALTHCHECK; ``None``: there is none, or it is NONE.
        shell: SHELL, which the shell forms of ENTRYPOINT and CMD run in.
        architecture: As Docker names it: ``amd64``, ``arm64``.
        on_build: ONBUILD: instructions for a Dockerfile that starts from this image.
        volumes: VOLUME.
    """

    env: dict[str, str] = dataclasses.field(default_factory=lambda: {"PATH": DEFAULT_PATH})
    entrypoint: list[str] = dataclasses.field(default_factory=list)
    cmd: list[str] = dataclasses.field(default_factory=list)
    cwd: str = "/"
    user: str = ""
    exposed: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    stop_signal: str | None = None
    healthcheck: Healthcheck | None = None
    shell: list[str] = dataclasses.field(default_factory=lambda: ["/bin/sh", "-c"])
    architecture: str = "amd64"
    on_build: list[str] = dataclasses.field(default_factory=list)
    volumes: list[str] = dataclasses.field(default_factory=list)

    @property
    def argv(self) -> list[str]:
        """What runs: ENTRYPOINT and CMD joined as Docker joins them."""
        return [*self.entrypoint, *self.cmd]

    @property
    def volume_paths(self) -> list[str]:
        """VOLUME: sorted, each once, in the shortest spelling.

        Raises:
            MalformedImage: A path is not absolute, or the root, which Docker refuses as well; or
                there are more than :data:`MAX_VOLUMES`.
        """
        found = set()
        for path in self.volumes:
            # Two slashes at the start mean something to POSIX and nothing to Linux.
            clean = posixpath.normpath("/" + path.lstrip("/"))
            if not path.startswith("/") or clean == "/" or "\0" in path:
                raise MalformedImage(
                    f"VOLUME {path[:120]!r}: expected an absolute path that is not the root"
                )
            found.add(clean)
        if len(found) > MAX_VOLUMES:
            raise MalformedImage(f"VOLUME names {len(found)} paths, the limit is {MAX_VOLUMES}")
        return sorted(found)

    @property
    def mounted_volumes(self) -> list[str]:
        """Where memory of its own is mounted: :attr:`volume_paths` less the kernel's folders.

        Raises:
            MalformedImage: As :attr:`volume_paths`.
        """
        return [path for path in self.volume_paths if path.split("/")[1] not in KERNEL_FOLDERS]

    def process(self, *, with_healthcheck: bool = False) -> dict[str, Any]:
        """``/cloister/process.json``, as `rust/wire` reads it.

        Args:
            with_healthcheck: HEALTHCHECK decides whether the application is well.

        Raises:
            MalformedImage: Nothing runs: neither ENTRYPOINT nor CMD is set; or a volume or a time
                of HEALTHCHECK is out of range.
        """
        if not self.argv:
            raise MalformedImage(
                "the image runs nothing: it has neither ENTRYPOINT nor CMD",
                hint='add `ENTRYPOINT ["/your-program"]` to the Dockerfile',
            )
        check = self._check() if with_healthcheck else None
        volumes = self.mounted_volumes
        # Absent when there are none, so that they do not change what other images measure.
        more = ({"volumes": volumes} if volumes else {}) | (
            {"healthcheck": check} if check is not None else {}
        )
        return {
            "argv": self.argv,
            "env": [[name, value] for name, value in self.env.items()],
            "cwd": self.cwd,
            "user": self.user,
            "groups": [],
            "stop_signal": signal_number(self.stop_signal or "SIGTERM"),
        } | more

    def _check(self) -> dict[str, Any] | None:
        check = self.healthcheck
        if check is None:
            return None
        kind, *command = check.test
        numbers = {
            "interval_ms": check.interval_ms,
            "timeout_ms": check.timeout_ms,
            "start_period_ms": check.start_period_ms,
            "start_interval_ms": check.start_interval_ms,
            "retries": check.retries,
        }
        for name, number in numbers.items():
            if number > MAX_NUMBER:
                raise MalformedImage(
                    f"HEALTHCHECK: `{name}` is {number}, the limit is {MAX_NUMBER}"
                )
        argv = [*CHECK_SHELL, *command] if kind == "CMD-SHELL" else command
        return {"argv": argv, **numbers}

    def inspected(self) -> dict[str, Any]:
        """The settings as ``docker image inspect`` names them, for the image's metadata."""
        config: dict[str, Any] = {
            "Cmd": self.cmd or None,
            "Entrypoint": self.entrypoint or None,
            "Env": [f"{name}={value}" for name, value in self.env.items()],
            "ExposedPorts": {f"{port}/{protocol}": {} for port, protocol in sorted(self.exposed)},
            "Healthcheck": {"Test": self.healthcheck.test} if self.healthcheck else None,
            "Labels": dict(sorted(self.labels.items())) or None,
            "StopSignal": self.stop_signal,
            "User": self.user,
            "Volumes": {path: {} for path in sorted(self.volumes)} or None,
            "WorkingDir": self.cwd,
        }
        return {"Config": {key: value for key, value in config.items() if value is not None}}


CHECK_SHELL = ["/bin/sh", "-c"]
"""Runs the shell form of HEALTHCHECK, whatever SHELL says: a container does not get SHELL of its
image (moby ``daemon/commit.go``, ``merge``)."""

KERNEL_FOLDERS = frozenset({"dev", "proc", "sys"})
MAX_VOLUMES = 64
MAX_NUMBER = 0xFFFF_FFFF
"""Of milliseconds and retries: 49 days."""


def signal_number(name: str) -> int:
    """The number of a signal by its name, with or without ``SIG``, or by its number.

    Raises:
        MalformedImage: There is no such signal.
    """
    if name.isascii() and name.isdecimal() and 1 <= int(name) <= signal.SIGRTMAX:
        return int(name)
    upper = "SIG" + name.upper().removeprefix("SIG")
    real_time = re.fullmatch(r"SIGRT(?:MIN\+([0-9]{1,2})|MAX-([0-9]{1,2}))", upper)
    if real_time:
        above, below = real_time.groups()
        number = signal.SIGRTMIN + int(above) if above else signal.SIGRTMAX - int(below)
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    # With the second names, such as SIGCLD and SIGIOT.
    found = signal.Signals.__members__.get(upper)
    if found is None:
        raise MalformedImage(f"there is no signal {name[:40]!r}")
    return int(found)
