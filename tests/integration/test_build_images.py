"""``cloister build`` from saved images and folders: the cache, and the same bytes everywhere."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import pytest
from tests.support import saved_images as si
from tests.support.project import Project
from tests.support.saved_images import file, folder, symlink

from cloister.build import cpio, open_eif

LAYERS = [
    si.layer(folder("bin"), file("bin/app", b"program", mode=0o755), file("old", b"x")),
    si.layer(file(".wh.old", b""), symlink("app", "bin/app"), file("later", mtime=2_000_000_000)),
]
CONFIG = {"Entrypoint": ["/app"], "ExposedPorts": {"8080/tcp": {}}, "Env": ["A=1"]}


@pytest.fixture(scope="module")
def initialized(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    project = Project(tmp_path_factory.mktemp("project"))
    project.run("init", "hello")
    si.docker_save(project.folder / "image.tar", LAYERS, CONFIG)
    return project.folder


@pytest.fixture
def project(initialized: pathlib.Path, tmp_path: pathlib.Path) -> Project:
    """A fresh copy of an initialized project with a saved image."""
    shutil.copytree(initialized, tmp_path / "project")
    return Project.of(tmp_path / "project")


def entries(project: Project) -> dict[str, cpio.Entry]:
    with open_eif(project.eif) as image:
        raw = bytes(image.ramdisks[1].payload)
    return {entry.path.decode(): entry for entry in cpio.read(raw)}


def test_a_saved_image_becomes_an_enclave_image(project: Project) -> None:
    built = project.json("build", "--image", "image.tar")
    assert (built["builder"], built["service_port"], built["reused"]) == ("none", 8080, "nothing")
    found = entries(project)
    assert list(found)[3:] == [
        "rootfs",
        "rootfs/app",
        "rootfs/bin",
        "rootfs/bin/app",
        "rootfs/later",
    ]
    assert {entry.mtime for entry in found.values()} == {0}
    record = (project.folder / "enclave.Dockerfile").read_text()
    assert "# image: sha256:" in record
    assert "# name: app:latest" in record
    project.run("describe", "enclave.eif", "--verify")


def test_every_spelling_of_the_same_image_measures_the_same(project: Project) -> None:
    expected = project.json("build", "--image", "image.tar")["pcrs"]
    si.archive(project.folder / "oci.tar", si.oci_files(LAYERS, CONFIG, compression="gzip"))
    si.written(project.folder / "layout", si.oci_files(LAYERS, CONFIG, compression="zstd"))
    for spelled in (
        "docker-archive:image.tar",
        "image.tar:app:latest",
        "oci.tar",
        "oci-archive:oci.tar",
        "layout",
        "oci:layout:app:latest",
    ):
        assert project.json("build", "--image", spelled)["pcrs"] == expected


def test_what_is_not_as_in_docker_is_said(project: Project) -> None:
    more = {
        "Volumes": {"/data": {}, "/sys/fs/cgroup": {}},
        "Healthcheck": {"Test": ["CMD", "/check"]},
    }
    si.docker_save(project.folder / "image.tar", LAYERS, CONFIG | more)
    for reused in ("nothing", "image"):
        built = project.json("build", "--image", "image.tar")
        assert built["reused"] == reused
        told = " ".join(built["warnings"])
        assert "VOLUME /data: a tmpfs" in told
        assert "VOLUME /sys/fs/cgroup is left out" in told
        assert "HEALTHCHECK of the image decides" in told
        process = json.loads(bytes(entries(project)["cloister/process.json"].data))
        assert process["volumes"] == ["/data"]
        assert process["healthcheck"]["argv"] == ["/check"]
    project.toml.write_text('healthcheck = "/up"\n' + project.toml.read_text())
    told = " ".join(project.json("build", "--image", "image.tar")["warnings"])
    assert "HEALTHCHECK" not in told
    process = json.loads(bytes(entries(project)["cloister/process.json"].data))
    assert "healthcheck" not in process


def test_a_volume_over_a_file_is_refused_as_in_docker(project: Project) -> None:
    si.docker_save(project.folder / "image.tar", LAYERS, CONFIG | {"Volumes": {"/bin/app": {}}})
    problem = project.error("build", "--image", "image.tar", status=65)
    assert "VOLUME '/bin/app' is not a folder" in problem["message"]
    si.docker_save(project.folder / "image.tar", LAYERS, CONFIG | {"Volumes": {"/bin": {}}})
    project.json("build", "--image", "image.tar")


def test_times_of_an_image_are_clamped_and_not_replaced(project: Project) -> None:
    project.json("build", "--image", "image.tar", SOURCE_DATE_EPOCH="1700000000")
    found = entries(project)
    assert found["rootfs/bin/app"].mtime == 1_600_000_000
    assert found["rootfs/later"].mtime == 1_700_000_000


def test_a_folder_becomes_an_enclave_image(project: Project) -> None:
    root = project.folder / "root"
    (root / "usr").mkdir(parents=True)
    (root / "usr" / "app").write_bytes(b"program")
    (root / "usr" / "app").chmod(0o4755)
    os.link(root / "usr" / "app", root / "usr" / "twin")
    (root / "out").symlink_to("/etc/passwd")
    words = ("build", "--rootfs", "root", "--entrypoint", '["/usr/app", "x"]')
    first = project.json(*words, "--env", "B=2", "--workdir", "/srv")
    found = entries(project)
    assert found["rootfs/usr/app"].mode & 0o7777 == 0o4755
    assert found["rootfs/usr/app"].inode == found["rootfs/usr/twin"].inode
    assert bytes(found["rootfs/out"].data) == b"/etc/passwd"
    os.utime(root / "usr" / "app", (1, 1))
    assert project.json(*words, "--env", "B=2", "--workdir", "/srv")["pcrs"] == first["pcrs"]
    assert "--entrypoint" in project.error("build", "--rootfs", "root", status=2)["hint"]
    os.mkfifo(root / "pipe")
    assert "`pipe`" in project.error(*words, status=65)["message"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--image", "image.tar", "--rootfs", "."), "one source"),
        (("--image", "image.tar", "--build-arg", "A=1"), "go with a Dockerfile"),
        (("--user", "root"), "go with --rootfs"),
        (("--rootfs", ".", "--entrypoint", "[1]"), "--entrypoint"),
        (("--rootfs", ".", "--entrypoint", "/a", "--workdir", "b"), "absolute"),
    ],
)
def test_arguments_that_do_not_go_together_are_named(
    project: Project, words: tuple[str, ...], message: str
) -> None:
    assert message in project.error("build", *words, status=2)["message"]


def test_an_image_that_nobody_has_names_where_was_looked(project: Project) -> None:
    problem = project.error("build", "--image", "no-such-image:1", status=66)
    assert "docker" in problem["message"]
    assert "buildah" in problem["message"]
    assert (
        "no image `none.tar`"
        in project.error("build", "--image", "./none.tar", status=66)["message"]
    )


def test_an_unchanged_image_comes_from_the_cache_and_a_changed_one_does_not(
    project: Project,
) -> None:
    first = project.json("build", "--image", "image.tar")
    whole = project.eif.read_bytes()
    again = project.json("build", "--image", "image.tar")
    assert (again["reused"], again["pcrs"]) == ("image", first["pcrs"])
    project.eif.unlink()
    again = project.json("build", "--image", "image.tar")
    assert (again["reused"], project.eif.read_bytes()) == ("image", whole)
    assert project.json("build", "--image", "image.tar", "--no-cache")["reused"] == "nothing"
    assert project.eif.read_bytes() == whole
    si.docker_save(project.folder / "image.tar", LAYERS[:1], CONFIG | {"Entrypoint": ["/bin/app"]})
    changed = project.json("build", "--image", "image.tar")
    assert changed["reused"] == "nothing"
    assert changed["pcrs"]["PCR0"] != first["pcrs"]["PCR0"]


def test_the_cache_serves_an_output_on_another_file_system(
    project: Project, tmp_path: pathlib.Path
) -> None:
    """A link cannot lead there: what is kept is copied, either way."""
    memory = pathlib.Path("/dev/shm")  # noqa: S108 - a file system of its own
    if memory.stat().st_dev == tmp_path.stat().st_dev or not os.access(memory, os.W_OK):
        pytest.skip(f"{memory} is no other file system that can be written to")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        there = pathlib.Path(folder) / "x.eif"
        words = ("build", "--image", "image.tar", "--output", str(there))
        first = project.json("build", "--image", "image.tar")
        assert project.json(*words)["reused"] == "image"
        assert there.read_bytes() == project.eif.read_bytes()
        # And the other way: what was built there is kept here.
        shutil.rmtree(project.folder / ".cloister" / "build")
        assert project.json(*words)["reused"] == "nothing"
        again = project.json(*words)
        assert (again["reused"], again["pcrs"]) == ("image", first["pcrs"])


def test_a_changed_setting_takes_the_files_from_the_cache_with_the_same_result(
    project: Project,
) -> None:
    project.json("build", "--image", "image.tar")
    project.toml.write_text(project.toml.read_text().replace("trx_logging = true", ""))
    project.toml.write_text(project.toml.read_text() + "\n[limits]\nheaders = 50\n")
    fast = project.json("build", "--image", "image.tar")
    cached = project.eif.read_bytes()
    slow = project.json("build", "--image", "image.tar", "--no-cache")
    assert (fast["reused"], slow["reused"]) == ("files", "nothing")
    assert fast["pcrs"] == slow["pcrs"]
    assert cached == project.eif.read_bytes()


def test_a_damaged_image_in_the_cache_is_not_used(project: Project) -> None:
    first = project.json("build", "--image", "image.tar")
    with project.eif.open("r+b") as image:  # the cache has a link to it
        image.seek(-700, os.SEEK_END)
        image.write(b"damage")
    again = project.json("build", "--image", "image.tar")
    assert (again["reused"], again["pcrs"]) == ("nothing", first["pcrs"])
    project.run("describe", "enclave.eif", "--verify")


def test_the_cache_keeps_a_few_images_only(project: Project) -> None:
    for number in range(5):
        config = CONFIG | {"Env": [f"A={number}"]}
        si.docker_save(project.folder / "image.tar", LAYERS, config)
        project.json("build", "--image", "image.tar")
    kept = list((project.folder / ".cloister" / "build").glob("*.eif"))
    assert len(kept) == 3


CONDITIONS: dict[str, dict[str, Any]] = {
    "another umask": {"umask": 0o077},
    "another time zone": {"environment": {"TZ": "Asia/Kathmandu"}},
    "another language": {"environment": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"}},
    "another hash seed": {"environment": {"PYTHONHASHSEED": "4711"}},
    "another folder": {"folder": "elsewhere/with a space/ünï"},
    "another order of files": {"is_reversed": True},
    "other times of files": {"time": 86_400},
}


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("source", ["Dockerfile", "--image", "--rootfs"])
def test_the_same_input_gives_the_same_bytes_under(
    condition: str, source: str, initialized: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """One input made twice, under two conditions; the images are compared byte by byte."""
    usual = made(initialized, tmp_path / "usual", source)
    other = made(initialized, tmp_path / "other", source, **CONDITIONS[condition])
    assert usual == other
    assert len(usual) > 1000


def made(  # noqa: PLR0913 - the conditions
    initialized: pathlib.Path,
    at: pathlib.Path,
    source: str,
    *,
    umask: int = 0o022,
    environment: dict[str, str] | None = None,
    folder: str = "project",
    is_reversed: bool = False,
    time: float | None = None,
) -> bytes:
    """Checks the input out, builds it, and returns the image."""
    before = os.umask(umask)
    try:
        target = at / folder
        (target / "files" / "sub").mkdir(parents=True)
        shutil.copytree(initialized / ".cloister", target / ".cloister")
        shutil.copy(initialized / "enclave.toml", target)
        shutil.copy(initialized / "image.tar", target)
        names = ["b", "a", "sub/ü", "sub/z", "c d"]
        for name in names[::-1] if is_reversed else names:
            (target / "files" / name).write_text(name)
            if time is not None:
                os.utime(target / "files" / name, (time, time))
        (target / "app").write_bytes(b"program")
        (target / "app").chmod(0o777 & ~umask)
        (target / "Dockerfile").write_text(
            'FROM scratch\nCOPY app /app\nCOPY files /files\nEXPOSE 8080\nENTRYPOINT ["/app"]\n'
        )
        words = {
            "Dockerfile": ("build", "--builder", "native"),
            "--image": ("build", "--image", "image.tar"),
            "--rootfs": ("build", "--rootfs", "files", "--entrypoint", "/a"),
        }[source]
        if source == "--rootfs":
            # Modes are part of a folder that is given as it is.
            for path in (target / "files", *(target / "files").rglob("*")):
                path.chmod(0o755)
        project = Project.of(target)
        project.run(*words, **(environment or {}))
        return project.eif.read_bytes()
    finally:
        os.umask(before)


def test_being_stopped_leaves_no_part_of_an_image(project: Project) -> None:
    """Ctrl-C while a large layer is worked on; what was there before is still there."""
    project.toml.write_text(project.toml.read_text().replace('"1GiB"', '"4GiB"'))
    project.json("build", "--image", "image.tar")
    before = project.files()
    big = si.layer(file("zeros", bytes(400 << 20)), file("app", mode=0o755))
    si.docker_save(project.folder / "big.tar", [big], CONFIG)
    child = subprocess.Popen(
        [sys.executable, "-m", "cloister.cli.main", "build", "--image", "big.tar"],
        cwd=project.folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not list(project.folder.glob(".enclave.eif.*")) and child.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode == 130
    (project.folder / "big.tar").unlink()
    assert project.files() == before
    assert not list((project.folder / ".cloister" / "build").glob("scratch-*"))
