"""The same input gives the same bytes, whoever builds it, with what, and on which file system.

Conditions of one process (umask, time zone, language, hash seed, folder, order and times of files)
are in ``test_build_images.py``. What takes minutes is marked ``conformance``.
"""

import dataclasses
import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator

import pytest
from tests.support import saved_images as si
from tests.support import static_binaries
from tests.support.local_run import Somebody
from tests.support.project import Project

from cloister.build import measure

ROOT = static_binaries.ROOT
SOURCES = {
    "Dockerfile": ("--builder", "native"),
    "--image": ("--image", "image.tar"),
    "--rootfs": ("--rootfs", "files", "--entrypoint", "/a"),
}
NAMES = ["b", "a", "sub/ü", "sub/z", "c d", *(f"many/{number}" for number in range(40))]
MEMORY = pathlib.Path("/dev/shm")  # noqa: S108 - a file system in memory, on every Linux


@pytest.fixture(scope="module")
def initialized(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Settings, keys and a saved image; the files are made anew by each test."""
    project = Project(tmp_path_factory.mktemp("reproducible"))
    project.run("init", "hello")
    layers = [si.layer(si.file("app", b"program", mode=0o755), si.file("etc/x", b"x"))]
    si.docker_save(project.folder / "image.tar", layers, {"Entrypoint": ["/app"]})
    return project.folder


def checked_out(initialized: pathlib.Path, folder: pathlib.Path, names: list[str]) -> pathlib.Path:
    """The project in another folder, its files made in this order."""
    folder.mkdir(parents=True)
    for name in ("enclave.toml", "image.tar", "app", ".cloister"):
        source = initialized / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    for name in names:
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    for path in (folder / "files", *(folder / "files").rglob("*")):
        path.chmod(0o755)
    (folder / "Dockerfile").write_text(
        'FROM scratch\nCOPY app /app\nCOPY files /files\nENTRYPOINT ["/app"]\n'
    )
    return folder


def listing(folder: pathlib.Path) -> tuple[str, ...]:
    """Names in the order of the file system."""
    return tuple(path.name for path in (folder / "files" / "many").iterdir())


def built(folder: pathlib.Path, who: Somebody, source: str) -> bytes:
    who.run("build", *SOURCES[source], folder=folder)
    return (folder / "enclave.eif").read_bytes()


@pytest.fixture
def shared() -> Iterator[pathlib.Path]:
    """A folder that every user can enter; those of pytest are the owner's alone."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cloister-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user can be had by root alone")
@pytest.mark.parametrize("source", SOURCES)
def test_another_user_builds_the_same_bytes(
    source: str, initialized: pathlib.Path, shared: pathlib.Path
) -> None:
    """It owns what is read, too, apart from the folder of `--rootfs`: owners are part of that."""
    mine = checked_out(initialized, shared / "mine", NAMES)
    (shared / "root").mkdir()
    expected = built(mine, Somebody(home=shared / "root"), source)
    nobody = Somebody.unprivileged(shared)
    theirs = checked_out(initialized, shared / "theirs", NAMES)
    for path in (theirs, *theirs.rglob("*")):
        if source != "--rootfs" or "files" not in path.relative_to(theirs).parts:
            os.lchown(path, nobody.uid or 0, nobody.uid or 0)
    assert built(theirs, nobody, source) == expected
    assert (theirs / "enclave.eif").stat().st_uid == nobody.uid


@pytest.mark.parametrize("source", SOURCES)
def test_another_file_system_lists_files_in_another_order_and_builds_the_same_bytes(
    source: str, initialized: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """In memory the youngest is listed first; on ext4 a hash decides."""
    if not os.access(MEMORY, os.W_OK):
        pytest.skip(f"{MEMORY} cannot be written to")
    who = Somebody(home=tmp_path)
    usual = checked_out(initialized, tmp_path / "usual", NAMES)
    expected = built(usual, who, source)
    with tempfile.TemporaryDirectory(dir=MEMORY) as memory:
        listings = {listing(usual)}
        for number, names in enumerate((NAMES, NAMES[::-1])):
            other = checked_out(initialized, pathlib.Path(memory) / f"{number}", names)
            listings.add(listing(other))
            assert built(other, who, source) == expected
    # Otherwise nothing was tried.
    assert len(listings) > 1


@dataclasses.dataclass(frozen=True)
class Interpreter:
    """A Python.

    Args:
        path: Where it is.
        version: What it says of itself, with its compiler.
    """

    path: str
    version: str


def other_interpreters() -> list[Interpreter]:
    """Pythons of this machine that may run the package and are not this one."""
    ask = "import sys, venv, ensurepip; print(sys.version_info[:2] >= (3, 11), sys.version)"
    names = [f"python3.{minor}" for minor in range(11, 20)]
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    # pyenv's own commands answer for the version that was chosen, and for no other.
    places = [None, "/usr/bin", *(str(path / "bin") for path in pyenv.glob("versions/*"))]
    found = [path for at in places for name in names if (path := shutil.which(name, path=at))]
    interpreters = {}
    for path in found:
        done = subprocess.run([path, "-c", ask], capture_output=True, text=True, check=False)
        is_new_enough, _, version = done.stdout.strip().partition(" ")
        if done.returncode == 0 and is_new_enough == "True" and version != sys.version:
            interpreters[version] = Interpreter(path, version)
    return list(interpreters.values())


@pytest.mark.conformance
@pytest.mark.timeout(900)
def test_another_python_builds_the_same_bytes(
    initialized: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Every other Python of this machine, with the packages that an installation brings."""
    others = other_interpreters()
    if not others:
        pytest.skip("there is no other Python from 3.11 on (Debian: python3; pyenv install 3.13)")
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    expected = {}
    for source in SOURCES:
        usual = checked_out(initialized, tmp_path / "usual" / source.strip("-"), NAMES)
        expected[source] = built(usual, Somebody(home=tmp_path), source)
    for number, other in enumerate(others):
        venv = tmp_path / f"python-{number}"
        subprocess.run([other.path, "-m", "venv", venv], check=True)
        python = str(venv / "bin" / "python")
        install = [python, "-m", "pip", "install", "--quiet", *needed]
        subprocess.run(install, check=True)
        # The version of the package is in the metadata of an image; an installation says it here.
        told = importlib.metadata.distribution("cloister").read_text("METADATA")
        installed = venv / "installed" / "cloister.dist-info"
        installed.mkdir(parents=True)
        (installed / "METADATA").write_text(told or "")
        paths = (str(ROOT / "python"), str(installed.parent))
        who = Somebody(home=tmp_path, python=python, paths=paths)
        for source, image in expected.items():
            again = checked_out(initialized, venv / "project" / source.strip("-"), NAMES)
            assert built(again, who, source) == image, other.version


@pytest.mark.conformance
@pytest.mark.timeout(3600)
def test_an_enclave_program_built_in_another_checkout_has_the_same_bytes(
    tmp_path: pathlib.Path,
) -> None:
    """A whole build of the same sources elsewhere, by a shell with other settings.

    `make conformance` builds this checkout's first. The two use one toolchain and one cache of
    sources: other ones are other inputs.
    """
    here = ROOT / "python" / "cloister" / "_bin"
    elsewhere = tmp_path / "a-folder-with-another-and-a-longer-name"
    shutil.copytree(ROOT, elsewhere, ignore=NOT_SOURCES, symlinks=True)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("CARGO_TARGET_DIR", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    subprocess.run(
        ["make", "-C", str(elsewhere), "static"],
        env=environment | {"TZ": "Asia/Kathmandu", "LC_ALL": "C"},
        umask=0o077,
        check=True,
    )
    for name in ("cloister-enclave", "cloister-sandbox"):
        other = elsewhere / "python" / "cloister" / "_bin" / name
        assert other.read_bytes() == (here / name).read_bytes(), name


def test_another_input_gives_other_bytes_and_registers(
    initialized: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The twin of the tests above."""
    who = Somebody(home=tmp_path)
    first = checked_out(initialized, tmp_path / "first", NAMES)
    second = checked_out(initialized, tmp_path / "second", NAMES)
    (second / "files" / "a").write_text("another")
    assert built(first, who, "Dockerfile") != built(second, who, "Dockerfile")
    one, other = (measure(folder / "enclave.eif").registers() for folder in (first, second))
    assert {index for index in one if one[index] != other[index]} == {0, 2}


NOT_SOURCES = shutil.ignore_patterns(
    ".git", ".venv", "target", "_bin", "dist", "__pycache__", ".*_cache", ".hypothesis", "*.so"
)
