"""The same by a user without any rights: no root, no subordinate ids, no home but its own."""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from tests.support.local_run import LocalRun, Somebody, is_alive, make_project, running

FOR_ROOT = pytest.mark.skipif(
    os.geteuid() != 0, reason="this user is unprivileged already: test_run.py is this test"
)


@pytest.fixture(scope="module")
def folder() -> Iterator[pathlib.Path]:
    """Open to everybody, as pytest's own folders are not."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="cloister-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def enclave(folder: pathlib.Path) -> Iterator[LocalRun]:
    who = Somebody.unprivileged(folder)
    project = make_project(who.home, who)
    with running(who, project) as run:
        yield run


@FOR_ROOT
def test_init_build_and_run_need_no_rights(enclave: LocalRun) -> None:
    owner = pathlib.Path(f"/proc/{enclave.process.pid}").stat().st_uid
    assert owner == 65534
    status, body = enclave.curl("/")
    assert (status, body.strip()) == (200, '{"hello":"enclave"}')
    assert enclave.curl("/", key=None)[0] == 401


@FOR_ROOT
def test_the_enclave_has_namespaces_of_its_own(enclave: LocalRun) -> None:
    pid = enclave.said["init_pid"]
    for kind in ("user", "mnt", "pid", "ipc", "uts", "net"):
        ours, theirs = (pathlib.Path(f"/proc/{who}/ns/{kind}").readlink() for who in ("self", pid))
        assert ours != theirs
    devices = pathlib.Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]


@FOR_ROOT
def test_nothing_is_left_behind(enclave: LocalRun) -> None:
    """The last test of this module: it ends the enclave."""
    pid = enclave.said["init_pid"]
    status, _, err = enclave.interrupt()
    assert status == 0, err
    assert not is_alive(pid)
    left = pathlib.Path(tempfile.gettempdir()).glob("cloister-run-*")
    assert not [path for path in left if path.stat().st_uid == 65534]
