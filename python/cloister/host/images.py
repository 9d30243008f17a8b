"""The images that a host has: a folder of EIFs, each measured once.

Whoever can write there can make the host run an image, and gains nothing by it: the platform
releases to what it has registered. A file is taken as whole when nothing was written to it for a
while, and it counts for what it measures, not for its name.
"""

import dataclasses
import datetime as dt
import json
import pathlib
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from cloister.errors import OutputError
from cloister.host.pauses import Pauses
from cloister.host.ports import ActiveDeployment

SUFFIX = ".eif"
SETTLED_SECONDS = 1.0
LOOK_SECONDS = 1.0
MEASURING_SECONDS = 300.0
FIRST_PAUSE, LONGEST_PAUSE = dt.timedelta(seconds=1), dt.timedelta(seconds=60)
MAX_IMAGES = 1000
STATIC = frozenset({0, 1, 2, 8})  # registers that the image alone decides
_Deployment = TypeVar("_Deployment", bound=ActiveDeployment)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that can be run.

    Args:
        path: The EIF.
        enclave: The enclave it was built for.
        pcrs: What it measures: PCR0 to PCR2, and PCR8 when it is signed.
        drain_ms: How long it may take to finish what is in flight.
    """

    path: pathlib.Path
    enclave: uuid.UUID
    pcrs: Mapping[int, bytes]
    drain_ms: int

    def is_of(self, deployment: ActiveDeployment) -> bool:
        """Whether it has every register of a deployment that an image decides."""
        wanted = deployment.pcrs
        return all(self.pcrs.get(index) == wanted[index] for index in STATIC & wanted.keys())


class Images:
    """The EIFs of a folder, looked at once a second from :meth:`start` to :meth:`stop`.

    Args:
        folder: Where they are; made when absent.
        warn: Told once of a file that cannot be used, and why.
        clock: The time that files are held against, seconds since the Unix epoch.

    Raises:
        OutputError: The folder cannot be made.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._warn = warn
        self._warned: set[str] = set()
        self._looked_at: dict[_Stamp, Image | None] = {}
        self._found: tuple[Image, ...] = ()
        self._has_looked = False
        self._pauses = Pauses(first=FIRST_PAUSE, longest=LONGEST_PAUSE)
        self._stopping = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="images")
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as problem:
            raise OutputError(f"cannot make `{folder}`: {problem.strerror}") from None

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Looks no more; what is being measured is given up."""
        self._stopping.set()
        child = self._child
        if child is not None:
            child.kill()
        if self._thread.ident is not None:
            self._thread.join()

    def of(
        self, enclave: uuid.UUID, deployments: Iterable[_Deployment]
    ) -> list[tuple[_Deployment, Image]] | None:
        """The deployments whose image is here, each with its image, in the order given.

        ``None``: nobody has looked yet.

        Args:
            enclave: Which enclave.
            deployments: What may run.
        """
        if not self._has_looked:
            return None
        own = [image for image in self._found if image.enclave == enclave]
        return [
            (deployment, image)
            for deployment in deployments
            for image in own
            if image.is_of(deployment)
        ]

    def look(self) -> None:
        """Looks once; measuring a large image takes seconds."""
        stamps = list(self._stamps())
        now = self._clock()
        kept = {stamp: self._looked_at[stamp] for stamp in stamps if stamp in self._looked_at}
        self._pauses.forget_others({stamp.name for stamp in stamps})
        for stamp in stamps:
            may_try = self._pauses.is_over(stamp.name, now_s=time.monotonic())
            if stamp in kept or not may_try or not stamp.is_settled(now):
                continue
            if self._stopping.is_set():
                return
            image, is_final = self._measure(stamp.path)
            if is_final:
                kept[stamp] = image
            else:
                self._pauses.failed(stamp.name, now_s=time.monotonic())
            self._publish(kept)
        self._publish(kept)
        self._has_looked = True

    def _publish(self, kept: "dict[_Stamp, Image | None]") -> None:
        self._looked_at = dict(kept)
        self._found = tuple(image for image in kept.values() if image is not None)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except Exception as problem:  # noqa: BLE001 - what is there goes on
                self._say(f"`{self._folder}` cannot be looked at: {problem}")
            self._stopping.wait(LOOK_SECONDS)

    def _stamps(self) -> "Iterator[_Stamp]":
        """Regular files, the ones changed last first."""
        found = []
        with_suffix = (one for one in self._folder.iterdir() if one.name.endswith(SUFFIX))
        for path in with_suffix:
            try:
                status = path.stat()
            except OSError:
                continue  # it was removed a moment ago
            if stat.S_ISREG(status.st_mode):
                found.append(_Stamp.of(path, status))
        found.sort(key=lambda stamp: stamp.changed_ns, reverse=True)
        if len(found) > MAX_IMAGES:
            self._say(f"`{self._folder}` has {len(found)} images: the newest {MAX_IMAGES} are used")
        yield from found[:MAX_IMAGES]

    def _measure(self, path: pathlib.Path) -> tuple[Image | None, bool]:
        """An image, or that the file is none; and whether that is so until it is changed."""
        found = self._described(path)
        refused = found.get("refused")
        if refused is not None:
            self._say(f"`{path}` is not taken: {refused}")
            return None, bool(found.get("is_final"))
        if found["debug"]:
            self._say(f"`{path}` is a debug image: a host runs none")
            return None, True
        try:
            enclave = uuid.UUID(found["uuid"])
        except ValueError:
            self._say(f"`{path}` is not taken: its configuration names no enclave")
            return None, True
        pcrs = {int(index): bytes.fromhex(value) for index, value in found["pcrs"].items()}
        image = Image(path=path, enclave=enclave, pcrs=pcrs, drain_ms=int(found["drain_ms"]))
        return image, True

    def _described(self, path: pathlib.Path) -> dict[str, Any]:
        """What :mod:`cloister.host.measured_image` says in a process of its own."""
        # -P and another folder: what lies about where the host was started is not imported.
        module = "cloister.host.measured_image"
        words = [sys.executable, "-P", "-m", module, str(path.absolute())]
        try:
            with subprocess.Popen(
                words,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            ) as child:
                self._child = child
                if self._stopping.is_set():
                    child.kill()
                try:
                    out, _ = child.communicate(timeout=MEASURING_SECONDS)
                except subprocess.TimeoutExpired:
                    child.kill()
                    raise
        except (OSError, subprocess.TimeoutExpired) as problem:
            return {"refused": f"it cannot be measured: {problem}", "is_final": False}
        finally:
            self._child = None
        if child.returncode != 0:
            why = "it was changed meanwhile, or there is no memory"
            return {"refused": f"measuring it ended with {child.returncode}: {why}"}
        described: dict[str, Any] = json.loads(out)
        return described

    def _say(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._warn(text)


@dataclasses.dataclass(frozen=True, slots=True)
class _Stamp:
    """A file as it was when it was looked at; another content or mode has another stamp."""

    path: pathlib.Path
    device: int
    inode: int
    size: int
    written_ns: int
    changed_ns: int

    @property
    def name(self) -> str:
        """What tells it from every other."""
        return repr(self)

    @classmethod
    def of(cls, path: pathlib.Path, status: Any) -> "_Stamp":  # noqa: ANN401 - os.stat_result
        """The stamp of a file."""
        return cls(
            path,
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )

    def is_settled(self, now: float) -> bool:
        """Whether nothing was done to it for a while. A time in the future says nothing."""
        return not 0 <= now - self.changed_ns / 1e9 < SETTLED_SECONDS
