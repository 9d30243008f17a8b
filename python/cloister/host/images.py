"""The images that a host has: a folder of EIFs, each measured once.

Whoever can write there can make the host run an image, and gains nothing by it: the platform
releases to what it has registered. A file is taken as whole when nothing was written to it for a
while, and it counts for what it measures, not for its name.
"""

import dataclasses
import pathlib
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from cloister.build import eif
from cloister.build.built_config import attested_of
from cloister.errors import CloisterError, OutputError
from cloister.host.ports import ActiveDeployment

SUFFIX = ".eif"
SETTLED_SECONDS = 1.0
MAX_IMAGES = 1000
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


class Images:
    """The EIFs of a folder. Its methods may be called from any thread.

    Args:
        folder: Where they are; made when absent.
        warn: Told once of a file that cannot be used, and why.

    Raises:
        OutputError: The folder cannot be made.
    """

    def __init__(self, folder: pathlib.Path, *, warn: Callable[[str], None]) -> None:
        self._folder = folder
        self._warn = warn
        self._lock = threading.Lock()
        self._measured: dict[_Stamp, Image | None] = {}
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as problem:
            raise OutputError(f"cannot make `{folder}`: {problem.strerror}") from None

    def newest(
        self, enclave: uuid.UUID, deployments: Iterable[_Deployment]
    ) -> tuple[_Deployment, Image] | None:
        """The first of these deployments whose image is here, and the image.

        Args:
            enclave: Which enclave.
            deployments: What may run, the newest first.
        """
        own = [image for image in self._all() if image.enclave == enclave]
        for deployment in deployments:
            for image in own:
                if all(image.pcrs.get(index) == deployment.pcrs.get(index) for index in MEASURED):
                    return deployment, image
        return None

    def _all(self) -> list[Image]:
        """Every image that is whole; measuring a large one takes seconds, once."""
        with self._lock:
            stamps = list(self._stamps())
            self._measured = {
                stamp: self._measured[stamp] for stamp in stamps if stamp in self._measured
            }
            for stamp in stamps:
                if stamp not in self._measured and stamp.is_settled(time.time()):
                    self._measured[stamp] = self._measure(stamp.path)
            return [image for image in self._measured.values() if image is not None]

    def _stamps(self) -> "Iterable[_Stamp]":
        paths = sorted(self._folder.glob(f"*{SUFFIX}"))
        for path in paths[:MAX_IMAGES]:
            try:
                status = path.stat()
            except OSError:
                continue  # it was removed a moment ago
            yield _Stamp(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def _measure(self, path: pathlib.Path) -> Image | None:
        try:
            with eif.open_eif(path) as opened:
                pcrs = eif.measure(opened).registers()
                built = attested_of(opened, image_path=path)
            if built["debug"]:
                self._warn(f"`{path}` is a debug image: a host runs none")
                return None
            return Image(
                path=path,
                enclave=uuid.UUID(built["uuid"]),
                pcrs=pcrs,
                drain_ms=built["limits"]["drain_timeout"],
            )
        except (CloisterError, OSError) as problem:
            self._warn(f"`{path}` is not taken: {problem}")
        except (KeyError, TypeError, ValueError):
            self._warn(f"`{path}` is not taken: its configuration names no enclave")
        return None


@dataclasses.dataclass(frozen=True, slots=True)
class _Stamp:
    """A file as it was when it was looked at; another content has another stamp."""

    path: pathlib.Path
    device: int
    inode: int
    size: int
    changed_ns: int

    def is_settled(self, now: float) -> bool:
        """Whether nothing was written to it for a while. A time in the future says nothing."""
        return not 0 <= now - self.changed_ns / 1e9 < SETTLED_SECONDS


MEASURED = (0, 1, 2)  # registers that every deployment names
