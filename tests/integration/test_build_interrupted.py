"""Ctrl-C while ``cloister build`` works leaves nothing at any stage, and what was there stays."""

import json
import os
import pathlib
import sys
import tarfile
import time
from collections.abc import Iterator

import pytest
from tests.support import large_images
from tests.support import saved_images as si
from tests.support.project import Project
from tests.support.terminal import Terminal

DOCKER = """\
#!/bin/sh
# A docker that never ends saving: a file of another name comes first, as its own client does it.
case "$1-$2" in
  version-*) echo '{"Client": {"Version": "20.10.0"}, "Server": {"Os": "linux"}}' ;;
  image-inspect) echo '{"Id": "sha256:IDENTITY"}' ;;
  image-save)
    head -c 3000000 /dev/zero > "$(dirname "${3#--output=}")/.tmp-image"
    exec sleep 300
    ;;
esac
""".replace("IDENTITY", 64 * "a")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose image was built once, and images that take their time."""
    project = Project(tmp_path_factory.mktemp("project"))
    project.run("init", "hello")
    project.toml.write_text(project.toml.read_text().replace('"1GiB"', '"4GiB"'))
    si.docker_save(project.folder / "image.tar", [si.layer(si.file("app", mode=0o755))], CONFIG)
    project.run("build", "--image", "image.tar")
    large_images.save_files(project.folder / "many.tar", _many(60_000))
    big = [si.layer(si.file("app", mode=0o755), si.file("zeros", bytes(200 << 20)))]
    si.docker_save(project.folder / "big.tar", big, CONFIG)
    large_images.gzipped(project.folder / "big.tar", project.folder / "big.tar.gz")
    si.archive(project.folder / "packed.tar", si.oci_files(big, CONFIG, compression="gzip"))
    path = project.folder / "bin" / "docker"
    path.parent.mkdir()
    path.write_text(DOCKER)
    path.chmod(0o755)
    return project


HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"
"""What hides the cursor while a bar is there, and shows it again."""
CONFIG = {"Entrypoint": ["/app"]}


def _many(count: int) -> Iterator[tuple[tarfile.TarInfo, None]]:
    for number in range(count):
        name = "app" if number == 0 else f"d{number % 50}/{number}"
        info = tarfile.TarInfo(name)
        info.mode = 0o755
        yield info, None


STAGES = {
    "opening": ("big.tar.gz", "`big.tar.gz` opened …"),
    "merging": ("many.tar", "layers, checked and merged …"),
    "decompressing": ("packed.tar", "layers, checked and merged …"),
    "writing": ("big.tar", "image `enclave.eif` …"),
    "saving": ("docker-image", "image from docker …"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_leaves_nothing_while(stage: str, project: Project) -> None:
    """Real Ctrl-C, on a terminal with a bar; 130 is what a shell says of a program it ends so."""
    image, sign = STAGES[stage]
    before = known(project.folder)
    command = [sys.executable, "-m", "cloister.cli.main", "build", "--verbose", "--image", image]
    command += ["--builder", "docker"] if stage == "saving" else []
    environment = {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PATH": f"{project.folder / 'bin'}:{os.environ['PATH']}",
    }
    with Terminal(command, project.folder, environment) as terminal:
        terminal.wait_for(sign)
        terminal.wait_for(HIDDEN)  # its bar is there, so it has begun
        if stage == "saving":
            terminal.wait_for("2.9 MiB")
        terminal.press_ctrl_c()
        pressed = time.monotonic()
        status = terminal.end()
        waited = time.monotonic() - pressed
    assert status == 130, terminal.drawn
    assert "PCR0" not in terminal.drawn
    assert "Traceback" not in terminal.drawn
    assert terminal.drawn.rfind(SHOWN) > terminal.drawn.rfind(HIDDEN) > 0
    assert known(project.folder) == before
    assert waited < 10, "it went on working"


def test_what_is_not_interrupted_is_built(project: Project) -> None:
    """The twin of the tests above: the same images are good ones."""
    before = json.loads(project.run("describe", "enclave.eif", "--json")[0])
    for image in ("many.tar", "big.tar.gz", "packed.tar"):
        output = project.folder / "other.eif"
        built = project.json("build", "--image", image, "--output", output.name, "--no-cache")
        assert built["pcrs"]["PCR0"] != before["pcrs"]["PCR0"]
        assert output.stat().st_size == built["size"]
        output.unlink()


def known(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
    """Every file and folder, with its length and time; what Python compiles is of no interest."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() or path.name.startswith("scratch-")
    }
