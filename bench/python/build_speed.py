"""How long an image takes to become an enclave image, beside ``sha384sum`` and ``cp`` of its bytes.

Run it by ``make bench-build``; it writes a page into ``bench/results``. The image is made here, of
about 200 MB, with the files of a distribution, an interpreter and an application, in four layers.
What is compared takes turns, and the minimum of each is kept: the rest of the machine only ever
adds to a time. Three things are measured:

- **base**: ``sha384sum image && cp image out``, as processes;
- **build**: what the command does between its call of ``build_image`` and the return: reading the
  saved image, merging, cpio, hashes, checksum, writing, the record and the PCRs;
- **command**: all of ``cloister build``, with the start of Python and of its libraries.

With ``--ahead`` (root) what is measured, base and ours alike, runs before everything else of the
machine, in the class ``SCHED_RR``. Beside the work of others two processors are one at best, and a
program of one thread would be compared with one of four that has no second processor.

Wall time is what the target is about; processor time, with that of every thread and child, says how
much of it is work.
"""

import argparse
import dataclasses
import datetime as dt
import os
import pathlib
import platform
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import IO

from tests.support import large_images


@dataclasses.dataclass(frozen=True, slots=True)
class Taken:
    """One measurement: seconds of wall and processor time, peak of memory in MiB (0: not told)."""

    wall: float
    cpu: float
    peak_mib: float


def main() -> None:
    """Measures and writes the page."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        bench = _Bench(pathlib.Path(name), AHEAD if options.ahead else ())
        lines = [*bench.small(options.rounds), *bench.large(options.huge_gib)]
    page = "\n".join([*_head(options), *lines, *_tail()]) + "\n"
    options.output.write_text(page)
    sys.stderr.write(f"{page}\nwritten to {options.output}\n")


class _Bench:
    """A project of its own, and the images in it."""

    def __init__(self, folder: pathlib.Path, before: Sequence[str]) -> None:
        self._folder = folder
        self._before = list(before)
        self._eif = folder / "enclave.eif"
        self._run("init", "bench")
        toml = folder / "enclave.toml"
        toml.write_text(toml.read_text().replace('"1GiB"', '"64GiB"'))

    def small(self, rounds: int) -> Iterator[str]:
        """The image of 200 MB, and everything that is measured with it."""
        image = large_images.save(self._folder / "image.tar", large_images.DEBIAN_LIKE)
        packed = large_images.gzipped(image, self._folder / "image.tar.gz")
        size = image.stat().st_size
        ways: dict[str, Callable[[], Taken]] = {
            "base: `sha384sum` and `cp`": lambda: self._base(image),
            "build": lambda: self._build(image),
            "command: `cloister build`": lambda: self._command(image),
            "build, `docker save` through gzip": lambda: self._build(packed),
            "command, unchanged image": lambda: self._cached(image),
            "start alone: `cloister --version`": lambda: self._timed(self._cloister("--version")),
        }
        found: dict[str, list[Taken]] = {way: [] for way in ways}
        for number in range(rounds):
            for way, measure in ways.items():
                found[way].append(measure())
                sys.stderr.write(f"{number + 1}/{rounds} {way}: {found[way][-1].wall:.2f} s\n")
        base = _best(found[next(iter(ways))])
        yield f"Image: {size / 1e6:.1f} MB, packed {packed.stat().st_size / 1e6:.1f} MB."
        yield ""
        yield "| what | wall, s | ÷ base | processor, s | ÷ base | peak, MiB |"
        yield "|---|---|---|---|---|---|"
        for way, taken in found.items():
            best = _best(taken)
            yield (
                f"| {way} | {best.wall:.2f} | {best.wall / base.wall:.2f} | {best.cpu:.2f}"
                f" | {best.cpu / base.cpu:.2f} | {best.peak_mib:.0f} |"
            )
        yield ""

    def large(self, huge_gib: int) -> Iterator[str]:
        """What takes memory: very many files, and very many bytes."""
        yield "| image | MB | wall, s | processor, s | peak, MiB |"
        yield "|---|---|---|---|---|"
        images = {"100 000 files": (_many, 100_000)}
        if huge_gib:
            images[f"{huge_gib} GiB in 16 files"] = (_huge, huge_gib << 30)
        for label, (entries, size) in images.items():
            image = large_images.save_files(self._folder / "large.tar", entries(size))
            taken = self._command(image)
            sys.stderr.write(f"{label}: {taken}\n")
            yield (
                f"| {label} | {image.stat().st_size / 1e6:.0f} | {taken.wall:.2f}"
                f" | {taken.cpu:.2f} | {taken.peak_mib:.0f} |"
            )
            image.unlink()
            self._eif.unlink()
        yield ""

    def _base(self, image: pathlib.Path) -> Taken:
        out = self._folder / "out"
        out.unlink(missing_ok=True)
        taken = self._timed(["sh", "-c", f"sha384sum {image} && cp {image} {out}"])
        assert out.stat().st_size == image.stat().st_size
        out.unlink()
        return taken

    def _build(self, image: pathlib.Path) -> Taken:
        """In a process of its own, which says itself how long the call took."""
        self._eif.unlink(missing_ok=True)
        done = subprocess.run(
            [*self._before, sys.executable, "-c", CALL, str(image)],
            cwd=self._folder,
            check=True,
            capture_output=True,
            text=True,
        )
        wall, cpu = (float(word) for word in done.stdout.split()[:2])
        assert self._eif.stat().st_size > image.stat().st_size / 2
        return Taken(wall, cpu, _peak(done.stdout))

    def _command(self, image: pathlib.Path) -> Taken:
        self._eif.unlink(missing_ok=True)
        taken = self._timed(self._cloister("build", "--image", str(image), "--no-cache"))
        assert self._eif.exists()
        return taken

    def _cached(self, image: pathlib.Path) -> Taken:
        words = ("build", "--image", str(image), "--output", "cached.eif")
        if not (self._folder / "cached.eif").exists():
            self._run(*words)
        return self._timed(self._cloister(*words))

    def _run(self, *words: str) -> None:
        subprocess.run(self._cloister(*words), cwd=self._folder, check=True, capture_output=True)

    def _cloister(self, *words: str) -> list[str]:
        return [sys.executable, "-c", COMMAND, *words]

    def _timed(self, command: Sequence[str]) -> Taken:
        """Wall and processor time of a process and its children; the peak where it tells it."""
        started = perf_counter()
        with subprocess.Popen(
            [*self._before, *command],
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdout is not None
            told = process.stdout.read()
            _, status, used = os.wait4(process.pid, 0)
            wall = perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, told
        return Taken(wall, used.ru_utime + used.ru_stime, _peak(told))


def _peak(told: str) -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", told)
    return int(found[1]) / 1024 if found else 0.0


def _best(taken: list[Taken]) -> Taken:
    """The minimum of each; of memory the maximum."""
    return Taken(
        min(one.wall for one in taken),
        min(one.cpu for one in taken),
        max(one.peak_mib for one in taken),
    )


def _many(size: int) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    piece = bytes(range(256)) * 16
    for number in range(size):
        info = tarfile.TarInfo("app" if not number else f"usr/lib/{number // 100}/file-{number}")
        info.size, info.mode = number % 4000, 0o755
        yield info, large_images.Repeated(piece, info.size)  # type: ignore[misc]


def _huge(size: int) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    piece = os.urandom(16 << 20)
    for number in range(16):
        info = tarfile.TarInfo("app" if not number else f"usr/data-{number}")
        info.size, info.mode = size // 16, 0o755
        yield info, large_images.Repeated(piece, info.size)  # type: ignore[misc]


def _head(options: argparse.Namespace) -> list[str]:
    how = "before everything else of the machine" if options.ahead else "beside everything else"
    return [
        f"# Building an image, {dt.datetime.now(dt.UTC).date()}",
        "",
        f"Minimum of {options.rounds} interleaved rounds, run {how}.",
        "What each row is: `bench/python/build_speed.py`.",
        "",
    ]


def _tail() -> list[str]:
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    coreutils = subprocess.run(
        ["sha384sum", "--version"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[0]
    machine = (
        f"Machine: {model[1] if model else platform.machine()}, {os.cpu_count()} CPUs,"
        f" {platform.system()} {platform.release()}; average load of the last 15 minutes:"
        f" {os.getloadavg()[2]:.1f}."
    )
    versions = (
        f"Versions: Python {platform.python_version()}, {ssl.OPENSSL_VERSION},"
        f" zlib {zlib.ZLIB_RUNTIME_VERSION}, {coreutils}."
    )
    return [
        machine,
        "",
        versions,
        "",
        f"Command: `{shlex.join(['python', '-m', 'bench.python.build_speed', *sys.argv[1:]])}`.",
    ]


def _options() -> argparse.Namespace:
    today = dt.datetime.now(dt.UTC).date()
    results = pathlib.Path(__file__).parents[1] / "results"
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="Rounds, 5 at least to be believed.")
    parser.add_argument("--huge-gib", type=int, default=4, help="Size of the large one; 0: none.")
    parser.add_argument("--ahead", action="store_true", help="Before everything else; root.")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="Where images are made.")
    parser.add_argument("--output", type=pathlib.Path, default=results / f"{today}-build.md")
    options = parser.parse_args()
    room = shutil.disk_usage(options.folder).free
    needed = (3 * options.huge_gib + 2) << 30
    if room < needed:
        parser.error(f"{options.folder} has {room >> 30} GiB of room, expected {needed >> 30}")
    return options


AHEAD = ("chrt", "--rr", "1")
COMMAND = """
import sys
from cloister.cli.main import run
status = run(sys.argv[1:])
print(open("/proc/self/status").read())
sys.exit(status)
"""
"""The command as it is; the kernel says the peak of memory of this process to itself alone."""
CALL = """
import sys, time
from cloister.cli import build
from cloister.cli.main import run
build_image = build.build_image
def timed(*arguments):
    wall, cpu = time.perf_counter(), time.process_time()
    built = build_image(*arguments)
    print(time.perf_counter() - wall, time.process_time() - cpu)
    return built
build.build_image = timed
status = run(["build", "--image", sys.argv[1], "--no-cache", "--quiet"])
print(open("/proc/self/status").read())
sys.exit(status)
"""
"""The same, with how long the build in it took: the first two numbers."""


if __name__ == "__main__":
    main()
