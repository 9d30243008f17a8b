"""``cloister doctor`` as a process: on this machine, and where the main job cannot be done."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

import pytest
from tests.support import saved_images as si
from tests.support.local_run import Somebody
from tests.support.project import Project

SECONDS = 20.0
"""It looks for 2 s at most at each thing, at several at once; the rest is for a busy machine."""


def doctor(
    folder: pathlib.Path, *words: str, before: tuple[str, ...] = (), **environment: str
) -> tuple[int, dict[str, Any]]:
    """Exit status, and the findings by their id."""
    started = time.monotonic()
    done = subprocess.run(
        [*before, sys.executable, "-m", "cloister.cli.main", "doctor", "--json", *words],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert time.monotonic() - started < SECONDS
    answer = json.loads(done.stdout)
    assert answer["can_work"] is (done.returncode == 0), done.stderr
    return done.returncode, {check["id"]: check for check in answer["checks"]}


def free_port() -> str:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{trial.getsockname()[1]}"


def test_this_machine_can_do_the_main_job(tmp_path: pathlib.Path) -> None:
    status, found = doctor(tmp_path, "--listen", free_port())
    assert status == 0
    assert found["kernel"]["state"] == "ok"
    assert found["builder-native"]["state"] == "ok"
    assert found["user-namespaces"]["state"] == "ok"
    for check in found.values():
        assert (check["fix"] is None) or check["state"] != "ok"


def test_a_taken_port_is_noticed(tmp_path: pathlib.Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, found = doctor(tmp_path, "--listen", f"127.0.0.1:{port}")
    assert status == 1
    assert found[f"port-{port}"]["state"] == "fail"
    assert f"process {os.getpid()}" in found[f"port-{port}"]["found"]


def test_without_user_namespaces_the_main_job_is_said_to_be_impossible(
    tmp_path: pathlib.Path,
) -> None:
    """In a user namespace whose own limit is none, so nothing on the machine changes."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no unshare (Debian: util-linux)")
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    before = (unshare, "--user", "--map-root-user", "sh", "-c", forbid, "sh")
    status, found = doctor(tmp_path, "--listen", free_port(), before=before)
    assert status == 1
    assert found["user-namespaces"]["state"] == "fail"
    assert "max_user_namespaces" in found["user-namespaces"]["fix"]
    assert found["sandbox"]["state"] == "fail"
    assert "max_user_namespaces" in found["sandbox"]["fix"]


def test_nothing_of_the_enclave_that_was_tried_is_left(tmp_path: pathlib.Path) -> None:
    temporary = pathlib.Path(tempfile.mkdtemp(prefix="cloister-test-"))
    try:
        status, found = doctor(tmp_path, "--listen", free_port(), TMPDIR=str(temporary))
        assert (status, found["sandbox"]["state"]) == (0, "ok")
        assert list(temporary.iterdir()) == []
        assert list(tmp_path.iterdir()) == []
    finally:
        shutil.rmtree(temporary)


@pytest.mark.skipif(os.geteuid() != 0, reason="every other test of this file is this one then")
def test_a_user_without_rights_is_told_what_it_lacks() -> None:
    """Namespaces are everybody's; ids and limits are not."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cloister-test-"))
    try:
        folder.chmod(0o755)
        who = Somebody.unprivileged(folder)
        found = who.json("doctor", "--listen", free_port(), folder=who.home)
    finally:
        shutil.rmtree(folder)
    checks = {check["id"]: check for check in found["checks"]}
    assert found["can_work"]
    assert checks["sandbox"]["state"] == "ok"
    assert checks["user-ids"]["state"] == "warn"
    assert "subuid" in checks["user-ids"]["found"] + checks["user-ids"]["fix"]
    assert "nobody" in checks["user-ids"]["fix"]
    assert checks["cgroups"]["state"] == "warn"
    if checks["port-443"]["state"] != "ok":
        assert "ip_unprivileged_port_start" in checks["port-443"]["fix"]


def test_a_dockerfile_that_no_builder_here_can_run_is_noticed(tmp_path: pathlib.Path) -> None:
    project = Project(tmp_path)
    project.run("init", "hello")
    empty = tmp_path / "empty"
    empty.mkdir()
    status, found = doctor(tmp_path, "--listen", free_port(), PATH=str(empty))
    assert (status, found["dockerfile"]["state"]) == (0, "ok")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nRUN true\n")
    status, found = doctor(tmp_path, "--listen", free_port(), PATH=str(empty))
    assert status == 1
    assert found["dockerfile"]["state"] == "fail"
    assert "Dockerfile:2: RUN" in found["dockerfile"]["found"]


def test_an_image_that_needs_more_memory_than_there_is_is_noticed(tmp_path: pathlib.Path) -> None:
    project = Project(tmp_path)
    project.run("init", "hello")
    project.run("build", "--builder", "native")
    status, found = doctor(tmp_path, "enclave.eif", "--listen", free_port())
    assert status == 0
    assert "`enclave.eif` needs 64MiB" in found["memory"]["found"]
    project.toml.write_text(project.toml.read_text().replace('"1GiB"', '"900GiB"'))
    (tmp_path / "enclave.eif").unlink()
    status, found = doctor(tmp_path, "--listen", free_port())
    assert status == 1
    assert "900GiB" in found["memory"]["found"]


def test_a_kernel_that_is_not_there_is_noticed(tmp_path: pathlib.Path) -> None:
    project = Project(tmp_path)
    project.run("init", "hello")
    status, found = doctor(tmp_path, "--listen", free_port())
    assert (status, "kernel-image" in found) == (0, False)
    project.toml.write_text(project.toml.read_text() + '\n[kernel]\nimage = "boot/bzImage"\n')
    status, found = doctor(tmp_path, "--listen", free_port())
    assert (status, found["kernel-image"]["state"]) == (1, "fail")
    assert "bzImage" in found["kernel-image"]["found"]
    assert "cloister kernel build" in found["kernel-image"]["fix"]


def test_files_that_are_broken_are_findings_and_end_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "enclave.eif").write_bytes(b"no image")
    status, found = doctor(tmp_path, "--listen", free_port())
    assert (status, found["image"]["state"]) == (0, "warn")
    (tmp_path / "enclave.toml").write_text('version = 1\nname = "Bad"\n')
    status, found = doctor(tmp_path, "--listen", free_port())
    assert (status, found["settings"]["state"]) == (1, "fail")
    assert "enclave.toml:2:1" in found["settings"]["found"]


def test_it_works_without_an_environment_and_in_a_folder_that_is_gone(
    tmp_path: pathlib.Path,
) -> None:
    """``env -i``: no PATH, no HOME."""
    env = shutil.which("env")
    paths = os.pathsep.join(path for path in sys.path if path)
    assert env is not None
    before = (env, "-i", f"PYTHONPATH={paths}")
    status, found = doctor(tmp_path, "--listen", free_port(), before=before)
    assert (status, found["sandbox"]["state"]) == (0, "ok")
    gone = tmp_path / "gone"
    gone.mkdir()
    shell = ("sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh")
    status, found = doctor(gone, "--listen", free_port(), before=shell)
    assert (status, found["disk-build"]["state"]) == (1, "fail")
    assert "gone" in found["disk-build"]["found"]


def test_few_descriptors_are_noticed_with_what_fits(tmp_path: pathlib.Path) -> None:
    before = ("sh", "-c", 'ulimit -n 500 && exec "$@"', "sh")
    status, found = doctor(tmp_path, "--listen", free_port(), before=before)
    assert (status, found["descriptors"]["state"]) == (0, "warn")
    assert "max_concurrent_connections = 122" in found["descriptors"]["fix"]


def test_a_file_that_is_no_image_is_an_error(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.eif").write_bytes(si.layer(si.file("x")))
    done = subprocess.run(
        [sys.executable, "-m", "cloister.cli.main", "doctor", "x.eif"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 65
    assert "x.eif" in done.stderr


def test_an_address_that_is_none_is_a_wrong_command(tmp_path: pathlib.Path) -> None:
    project = Project(tmp_path)
    for address in ("8443", "127.0.0.1:99999", ":8443"):
        assert "--listen" in project.error("doctor", "--listen", address, status=2)["message"]
