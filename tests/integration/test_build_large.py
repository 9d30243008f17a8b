"""Large images: memory, many files, and how long an unchanged image takes.

Times are processor time of the whole command, so that a busy machine does not matter.
"""

import io
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from typing import IO

import pytest
from tests.support import large_images
from tests.support.project import Project

from cloister.build import cpio, open_eif

MIB = 1 << 20
MAX_RSS_MIB = 300
MANY = 100_000
LARGEST = pytest.mark.conformance


@pytest.fixture
def project(tmp_path: pathlib.Path) -> Iterator[Project]:
    """A project with memory for everything; its files go when the test ends, for they are large."""
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project")
    project.run("init", "large")
    project.toml.write_text(project.toml.read_text().replace('"1GiB"', '"64GiB"'))
    yield project
    shutil.rmtree(project.folder)


@pytest.mark.parametrize(
    "size",
    [pytest.param(MIB << 10, id="1 GiB"), pytest.param(4 * MIB << 10, id="4 GiB", marks=LARGEST)],
)
def test_memory_does_not_grow_with_the_image(size: int, project: Project) -> None:
    """Big files of real bytes and one of a hole, and small ones between: all are passed through."""
    image = large_images.save_files(project.folder / "image.tar", _mixed(size))
    status, peak_mib, _ = measured(project, "build", "--image", image.name, "--no-cache")
    assert status == 0
    assert project.eif.stat().st_size > size
    assert peak_mib < MAX_RSS_MIB
    project.run("build", "--image", image.name)
    status, peak_mib, _ = measured(project, "build", "--image", image.name)
    assert status == 0
    assert peak_mib < MAX_RSS_MIB, "from the cache"


def test_an_image_of_100_000_files_is_built_exactly(project: Project) -> None:
    large_images.save_files(project.folder / "image.tar", _many())
    status, peak_mib, seconds = measured(project, "build", "--image", "image.tar", "--no-cache")
    assert status == 0
    assert seconds < 60
    assert peak_mib < MAX_RSS_MIB
    with open_eif(project.eif) as image:
        found = {
            entry.path: (entry.mode, entry.uid, bytes(entry.data))
            for entry in cpio.read(image.ramdisks[1].payload)
            if entry.path.startswith(b"rootfs/d")
        }
    expected = {
        f"rootfs/{info.name}".encode(): (
            0o40_755 if info.isdir() else 0o100_000 | info.mode,
            info.uid,
            b"" if content is None else content.read(),
        )
        for info, content in _many()
        if info.name.startswith("d")
    }
    assert len(expected) > MANY
    assert found == expected


def test_an_unchanged_image_of_200_mb_takes_less_than_a_second(project: Project) -> None:
    """The minimum of three runs: what else the machine does adds to processor time, too."""
    large_images.save(project.folder / "image.tar", large_images.DEBIAN_LIKE)
    built = project.json("build", "--image", "image.tar")
    taken = []
    for _ in range(3):
        status, _, seconds = measured(project, "build", "--image", "image.tar")
        assert status == 0
        taken.append(seconds)
    assert project.json("build", "--image", "image.tar")["reused"] == "image"
    assert built["size"] > 190 * 10**6
    assert min(taken) < 1


def measured(project: Project, *words: str) -> tuple[int, float, float]:
    """Status of a command, its peak of memory in MiB, and its processor time in seconds.

    The peak is what the kernel says inside the process: what it says to a parent begins with the
    parent's own.
    """
    script = (
        "import resource, sys; from cloister.cli.main import run; status = run(sys.argv[1:]);"
        "used = [resource.getrusage(who) for who in"
        " (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)];"
        "print(open('/proc/self/status').read(),"
        " 'Seconds:', sum(one.ru_utime + one.ru_stime for one in used));"
        "sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=project.folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    peak = re.search(r"VmHWM:\s+(\d+) kB", done.stdout)
    seconds = re.search(r"Seconds: ([\d.]+)", done.stdout)
    assert peak, (done.stdout, done.stderr)
    assert seconds
    return done.returncode, int(peak[1]) / 1024, float(seconds[1])


Entries = Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]


def _mixed(size: int) -> Entries:
    """An eighth of it a hole, which the archive has no bytes for; the rest four files of bytes."""
    piece = bytes(range(256)) * 4096
    yield _info("app", 7), io.BytesIO(b"program")
    for number in range(4):
        part = size * 7 // 32
        yield _info(f"big-{number}", part), large_images.Repeated(piece, part)  # type: ignore[misc]
        for small in range(500):
            yield _info(f"small-{number}-{small}", 5), io.BytesIO(b"bytes")
    tail = b"1\n%d\n%d\n" % (size // 8 - 4096, 4096)
    head = tail + bytes(-len(tail) % tarfile.BLOCKSIZE)
    holes = _info("holes", len(head) + 4096)
    holes.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "holes",
        "GNU.sparse.realsize": str(size // 8),
    }
    yield holes, io.BytesIO(head + b"e" * 4096)


def _many() -> Entries:
    """Files in folders in folders, with names of every length, two of three with bytes."""
    yield _info("app", 7), io.BytesIO(b"program")
    for number in range(MANY):
        folder = f"d{number // 5000}/{'e' * (number // 250 % 20 + 1)}-{number // 250}"
        if number % 5000 == 0:
            yield _folder(f"d{number // 5000}"), None
        if number % 250 == 0:
            yield _folder(folder), None
        content = str(number).encode() * (number % 3)
        name = f"{folder}/{number}-{'n' * (number % 180)}"
        yield _info(name, len(content), mode=0o600 + number % 64, uid=number), io.BytesIO(content)


def _info(name: str, size: int, *, mode: int = 0o755, uid: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uid = size, mode, uid
    return info


def _folder(name: str) -> tarfile.TarInfo:
    info = _info(name, 0)
    info.type = tarfile.DIRTYPE
    return info
