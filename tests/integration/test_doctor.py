"""``cloister doctor`` as a process: on this machine, and where the main job cannot be done."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
from typing import Any

import pytest
from tests.support import saved_images as si
from tests.support.project import Project

SECONDS = 20.0
"""It looks for 2 s at most at each thing, at several at once; the rest is for a busy machine."""


def doctor(
    folder: pathlib.Path, *words: str, before: tuple[str, ...] = ()
) -> tuple[int, dict[str, Any]]:
    """Exit status, and the findings by their id."""
    started = time.monotonic()
    done = subprocess.run(
        [*before, sys.executable, "-m", "cloister.cli.main", "doctor", "--json", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
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
