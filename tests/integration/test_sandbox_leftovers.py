"""What is left when the launcher, or whoever started it, is killed: nothing.

Each test looks for processes, mounts and the run folder by names of its own, so that other enclaves
on this machine do not disturb it.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator

import pytest
from tests.support import static_binaries
from tests.support.sandbox_image import Entry, Launched, eventually, image, launched

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(name="folder")
def folder_of_everybody() -> Iterator[pathlib.Path]:
    """A short path that another user may enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="leftovers-") as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        shutil.copy(static_binaries.launcher(), folder / "launcher")
        (folder / "launcher").chmod(0o755)
        yield folder


def contents() -> bytes:
    probe = static_binaries.fixture("fixture-probe").read_bytes()
    init = static_binaries.fixture("fixture-init")
    argv = ["/probe", "describe"]
    return image(init, [Entry(name="rootfs/probe", data=probe)], argv=argv, debug=True)


def descendants(pid: int) -> set[int]:
    """``pid`` and everything below it."""
    found = {pid}
    for entry in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        for child in entry.read_text().split():
            found |= descendants(int(child))
    return found


def alive(pids: set[int]) -> set[int]:
    def is_alive(pid: int) -> bool:
        try:
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        return stat.rpartition(") ")[2][0] not in "ZX"

    return {pid for pid in pids if is_alive(pid)}


def assert_nothing_is_left(
    folder: pathlib.Path, pids: set[int], groups: list[pathlib.Path]
) -> None:
    assert eventually(lambda: not alive(pids)), alive(pids)
    assert eventually(lambda: not (folder / "run").exists()), list((folder / "run").iterdir())
    assert str(folder) not in pathlib.Path("/proc/self/mountinfo").read_text()
    assert eventually(lambda: not [group for group in groups if group.exists()]), groups


def groups_of(init: int) -> list[pathlib.Path]:
    return list(pathlib.Path("/sys/fs/cgroup").glob(f"**/cloister-{init}"))


def running_tree(running: Launched) -> tuple[set[int], list[pathlib.Path]]:
    running.shown("process: probe done")
    init = running.event("started")["init_pid"]
    assert isinstance(init, int)
    pids = descendants(running.process.pid)
    # Launcher, sweeper, init, data plane, reaper, user process.
    assert len(pids) >= 6, pids
    return pids, groups_of(init)


@pytest.mark.parametrize("as_root", [True, False], ids=["as-root", "as-user"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_after_the_launcher_ends(
    folder: pathlib.Path, number: signal.Signals, *, as_root: bool
) -> None:
    if as_root and os.getuid() != 0:
        pytest.skip("not root")
    uid = None if as_root else static_binaries.user_for_tests()
    with launched(folder / "launcher", contents(), folder, uid=uid, debug=True) as running:
        pids, groups = running_tree(running)
        running.process.send_signal(number)
        running.process.wait(20)
        assert_nothing_is_left(folder, pids, groups)


def test_nothing_is_left_after_init_is_killed(folder: pathlib.Path) -> None:
    with launched(folder / "launcher", contents(), folder, debug=True) as running:
        pids, groups = running_tree(running)
        init = running.event("started")["init_pid"]
        assert isinstance(init, int)
        os.kill(init, signal.SIGKILL)
        assert running.event("exited") == {"event": "exited", "code": None, "signal": 9}
        running.process.wait(20)
        assert_nothing_is_left(folder, pids, groups)


def test_a_second_signal_does_not_wait_for_the_drain(folder: pathlib.Path) -> None:
    with launched(folder / "launcher", contents(), folder, debug=True) as running:
        pids, groups = running_tree(running)
        init = running.event("started")["init_pid"]
        assert isinstance(init, int)
        # A stopped data plane never answers the drain.
        for pid in descendants(init) - {init}:
            os.kill(pid, signal.SIGSTOP)
        running.process.terminate()
        running.shown("init: drain")
        running.process.terminate()
        running.process.wait(5)
        assert_nothing_is_left(folder, pids, groups)


def test_an_enclave_that_does_not_drain_is_killed_after_its_grace(folder: pathlib.Path) -> None:
    with launched(folder / "launcher", contents(), folder, debug=True, grace_ms=500) as running:
        pids, groups = running_tree(running)
        init = running.event("started")["init_pid"]
        assert isinstance(init, int)
        for pid in descendants(init) - {init}:
            os.kill(pid, signal.SIGSTOP)
        running.process.terminate()
        assert running.event("exited", timeout=5) == {"event": "exited", "code": None, "signal": 9}
        running.process.wait(5)
        assert_nothing_is_left(folder, pids, groups)


@pytest.mark.parametrize("from_thread", [False, True], ids=["main", "thread"])
def test_nothing_is_left_after_the_parent_is_killed(
    folder: pathlib.Path, *, from_thread: bool
) -> None:
    """The parent is a Python process; its thread that started the enclave may end before."""
    (folder / "image.eif").write_bytes(contents())
    program = textwrap.dedent(
        f"""
        import pathlib, sys, threading, time
        from cloister.runners import Launch, SandboxRunner
        folder = pathlib.Path({str(folder)!r})
        ready = threading.Event()
        def told(line):
            if "probe done" in line: ready.set()
        runner = SandboxRunner(
            dev_ca_dir=folder / "ca", console=told, launcher=folder / "launcher"
        )
        runner.prepare(folder / "run")
        def start():
            global enclave
            image = folder / "image.eif"
            enclave = runner.start(
                Launch(image=image, run_dir=folder / "run", module_id="i-1", debug=True)
            )
        if {from_thread}:
            thread = threading.Thread(target=start); thread.start(); thread.join()
            assert enclave.wait(0.5) is None, "ended with the thread that started it"
        else:
            start()
        assert ready.wait(20)
        print(enclave.pid, enclave.init_pid, flush=True)
        time.sleep(600)
        """
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT / "python"), "PATH": "/usr/bin:/bin"},
    )
    with parent:
        try:
            assert parent.stdout is not None
            launcher, init = map(int, parent.stdout.readline().split())
            pids = descendants(launcher)
            assert len(pids) >= 6, pids
            groups = groups_of(init)
            parent.kill()
            parent.wait(20)
            assert_nothing_is_left(folder, pids, groups)
        finally:
            parent.kill()
