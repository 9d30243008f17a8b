"""T-16: the user process tries to reach what is not its own, and is refused.

``fixture-probe`` runs as the user process of a real image in the real sandbox, behind the real
init; only the data plane is a script. It prints what it reached; each attempt has a twin among the
ordinary things that must work, or the confinement could pass by breaking everything. All of it is
done as root and as an ordinary user.
"""

import collections
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from tests.support import static_binaries
from tests.support.sandbox_image import Entry, Launched, image, launched

# CAP_CHOWN … CAP_AUDIT_WRITE: Docker's default set less NET_RAW and MKNOD.
CAPABILITIES = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 29, 31))
ATTEMPTS = 83
MEMORY = 512 << 20

USERS = [pytest.param(True, id="as-root"), pytest.param(False, id="as-user")]


@pytest.fixture(name="folder")
def folder_of_everybody() -> Iterator[pathlib.Path]:
    """A short path that another user may enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="t16-") as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        yield folder


def probe_image(*words: str, user: str = "", **settings: object) -> bytes:
    """An image whose command is the probe; its output is shown, as it is a debug image."""
    probe = static_binaries.fixture("fixture-probe").read_bytes()
    return image(
        static_binaries.fixture("fixture-init"),
        [
            Entry(name="rootfs/probe", data=probe),
            *settings.pop("rootfs", []),  # type: ignore[misc]
        ],
        argv=["/probe", *words],
        user=user,
        debug=True,
        **settings,  # type: ignore[arg-type]
    )


def said(running: Launched) -> list[list[str]]:
    """What the probe printed, by words."""
    console = running.shown("process: probe done", timeout=30)
    return [line.split(" ", 2) for line in re.findall(r"process: probe (.*)", console)]


@pytest.mark.parametrize("as_root", USERS)
@pytest.mark.parametrize("user", ["", "1000:1000"], ids=["image-root", "image-user"])
def test_the_user_process_reaches_nothing_of_ours(
    folder: pathlib.Path, user: str, *, as_root: bool
) -> None:
    uid = uid_for(as_root=as_root)
    if user and not as_root:
        pytest.skip("without a range of ids only root exists inside; test_sandbox.py has that")
    secret = folder / "host-file"
    secret.write_text("readable by everybody on the host")
    secret.chmod(0o644)
    contents = probe_image("attack", str(secret), user=user)
    with launched(copied(folder), contents, folder, uid=uid, debug=True) as running:
        lines = said(running)
    reached = [line for line in lines if line[1:2] == ["reached"]]
    refused = [line[0] for line in lines if line[1:2] == ["refused"]]
    fails = [line for line in lines if line[1:2] == ["fails"]]
    works = [line[0] for line in lines if line[1:2] == ["works"]]
    assert not reached
    assert len(refused) == ATTEMPTS, refused
    assert [name for name, count in collections.Counter(refused).items() if count > 1] == []
    assert not fails
    assert len(works) == 12, works
    state = {line[1]: line[2] for line in lines if line[0] == "state"}
    has_root = user == ""
    assert int(state["CapBnd"], 16) == CAPABILITIES
    assert int(state["CapEff"], 16) == (CAPABILITIES if has_root else 0)
    assert int(state["CapPrm"], 16) == (CAPABILITIES if has_root else 0)
    assert int(state["CapInh"], 16) == int(state["CapAmb"], 16) == 0
    assert (state["NoNewPrivs"], state["Seccomp"]) == ("1", "2")
    assert state["descriptors"] == "[]"


def test_filters_answer_as_they_should(folder: pathlib.Path) -> None:
    """``ENOSYS`` makes libraries use an older call; ``EPERM`` would make them fail."""
    with launched(copied(folder), probe_image("attack", "/none"), folder, debug=True) as running:
        lines = {line[0]: line[-1] for line in said(running)}
    for name in ["io_uring", "clone3", "x32_getpid", "x32_vsock", "unknown_call", "int80_getpid"]:
        assert "os error 38" in lines[name], (name, lines[name])
    for name in ["af_vsock", "af_vsock_high", "ptrace_1", "mount", "unshare_user", "clone_user"]:
        assert "os error 1)" in lines[name], (name, lines[name])


def test_a_fork_bomb_is_bounded_and_init_lives(folder: pathlib.Path) -> None:
    with launched(copied(folder), probe_image("fork"), folder, debug=True) as running:
        lines = said(running)
        children = int(next(line[1] for line in lines if line[0] == "children"))
        assert 1000 < children <= 4096
        running.process.terminate()
        assert running.event("exited")["code"] == 0


def test_filling_every_file_system_is_bounded_and_init_lives(folder: pathlib.Path) -> None:
    contents = probe_image("fill")
    settings = {"memory_bytes": MEMORY}
    with launched(copied(folder), contents, folder, debug=True, **settings) as running:
        lines = said(running)
        # "filled FOLDER MEBIBYTES OUTCOME"
        filled = {line[1]: line[2] for line in lines if line[0] == "filled"}
        running.process.terminate()
        assert running.event("exited")["code"] == 0
    assert set(filled) == {"/tmp", "/dev/shm", "/"}  # noqa: S108 - folders inside the sandbox
    for outcome in filled.values():
        assert "Err(" in outcome, filled
    assert int(filled["/"].split()[0]) <= MEMORY >> 21


def test_orphans_of_the_user_process_are_collected(folder: pathlib.Path) -> None:
    with launched(copied(folder), probe_image("orphans"), folder, debug=True) as running:
        lines = said(running)
    assert ["zombies", "0"] in lines


def test_output_of_the_user_process_is_dropped_unless_the_nsm_confirms_debug(
    folder: pathlib.Path,
) -> None:
    """A debug configuration alone does not open the console: PCR0 must be zero as well."""
    with launched(copied(folder), probe_image("describe"), folder, debug=False) as running:
        console = running.shown("process_started")
        assert str(running.event("started")["pcrs"]["0"]).strip("0")  # type: ignore[index]
        running.process.terminate()
        running.event("exited")
        console = running.console
    assert "probe uid" not in console
    other = folder / "twin"
    other.mkdir()
    with launched(copied(folder), probe_image("describe"), other, debug=True) as running:
        running.shown("probe uid 0")


def uid_for(*, as_root: bool) -> int | None:
    """Who the launcher is: root only where the tests are."""
    if not as_root:
        return static_binaries.user_for_tests()
    if os.getuid() != 0:
        pytest.skip("not root")
    return None


def copied(folder: pathlib.Path) -> pathlib.Path:
    """The launcher, where another user may read it."""
    path = folder / "launcher"
    if not path.exists():
        shutil.copy(static_binaries.launcher(), path)
        path.chmod(0o755)
    return path
