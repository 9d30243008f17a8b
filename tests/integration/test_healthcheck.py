"""HEALTHCHECK of an image and VOLUME, in the sandbox: what init does with them.

That a check sees what the process sees, as in Docker, is in `test_what_runs.py`; when it is run and
what its results amount to is in `rust/init/src/health_check/course.rs`. The data plane is a script.
"""

import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator

import pytest
from tests.support import static_binaries, what_runs
from tests.support.sandbox_image import (
    DIRECTORY,
    FILE,
    Entry,
    Launched,
    eventually,
    image,
    launched,
)

QUICK = {
    "interval_ms": 300,
    "timeout_ms": 2_000,
    "start_period_ms": 0,
    "start_interval_ms": 300,
    "retries": 2,
}


@pytest.fixture(name="folder")
def short_folder() -> Iterator[pathlib.Path]:
    with what_runs.short_folder() as folder:
        shutil.copy(static_binaries.launcher(), folder / "launcher")
        yield folder


def witness_image(
    *check: str,
    rootfs: list[Entry] | None = None,
    settings: dict[str, object] | None = None,
    process: dict[str, object] | None = None,
    **more: object,
) -> bytes:
    """An image with a health check, when there are words of one."""
    witness = static_binaries.fixture("fixture-witness").read_bytes()
    healthcheck = {"argv": list(check), **QUICK, **(settings or {})}
    return image(
        static_binaries.fixture("fixture-init"),
        [
            Entry(name="rootfs/app", data=witness),
            Entry(name="rootfs/check", data=witness),
            *(rootfs or []),
        ],
        **{  # type: ignore[arg-type]
            "argv": ["/app"],
            "debug": True,
            "config": {"healthcheck": None},
            "process": ({"healthcheck": healthcheck} if check else {}) | (process or {}),
        }
        | more,
    )


def told(is_healthy: str, reason: str | None) -> str:
    """What the data plane hears; the verdict in JSON."""
    rest = f'"is_healthy":{is_healthy},"reason":{json.dumps(reason)}'
    return f'heard {{"type":"process_health",{rest}}}'


def because(problem: str) -> str:
    return f"HEALTHCHECK of the image: {problem}"


@pytest.fixture(
    name="uid", params=[None, static_binaries.user_for_tests()], ids=["this user", "another user"]
)
def who_starts_the_sandbox(request: pytest.FixtureRequest) -> int | None:
    """Without root the sandbox may have one id alone, and fewer rights to enter namespaces."""
    uid: int | None = request.param
    return uid


def test_exit_code_0_is_healthy_and_the_data_plane_hears_it_once(
    folder: pathlib.Path, uid: int | None
) -> None:
    contents = witness_image("/check")
    with launched(folder / "launcher", contents, folder, uid=uid, debug=True) as running:
        running.shown(told("null", None))
        running.shown(told("true", None))
        assert eventually(lambda: running.console.count("healthcheck: witness") >= 4)
        assert running.console.count(told("true", None)) == 1


@pytest.mark.parametrize(
    ("check", "problem"),
    [
        (("/check", "exit", "1"), "exit code 1"),
        (("/check", "exit", "77"), "exit code 77"),
        (("missing",), "no program `missing` in the image"),
        (("/",), "cannot run `/`: Permission denied (os error 13)"),
    ],
)
def test_any_other_end_is_not_healthy_after_so_many_retries(
    folder: pathlib.Path, check: tuple[str, ...], problem: str
) -> None:
    """The user process runs on: Docker does not restart what is not healthy either."""
    with launched(folder / "launcher", witness_image(*check), folder, debug=True) as running:
        running.shown(told("null", because(problem)))
        running.shown(told("false", because(problem)))
        assert 'heard {"type":"process_exited"' not in running.console


def test_a_check_that_hangs_is_killed_with_all_that_it_started(folder: pathlib.Path) -> None:
    """Also a process in a session of its own, whose parent is gone; none is left as a zombie."""
    contents = witness_image("/check", "hang", settings={"timeout_ms": 300})
    with launched(folder / "launcher", contents, folder, debug=True) as running:
        running.shown(told("false", because("it took too long and was killed")))
        assert eventually(lambda: running.console.count("healthcheck: left") >= 3)
        assert set(re.findall(r"healthcheck: left (\d+)", running.console)) == {"0"}
        init = running.event("started")["init_pid"]
        assert isinstance(init, int)
        assert eventually(lambda: "Z" not in states_below(init))
        assert running.console.count("the user process starts") == 1


def states_below(pid: int) -> list[str]:
    """States of a process and its descendants (proc(5))."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    own = stat.rpartition(")")[2].split()[0]
    return [own, *(state for child in children for state in states_below(int(child)))]


def test_a_check_cannot_look_into_the_processes_that_run_it(folder: pathlib.Path) -> None:
    """T-16, as root: the examiner holds the way to init, the reaper the report of the end."""
    with launched(
        folder / "launcher", witness_image("/check", "pry"), folder, debug=True
    ) as running:
        running.shown("pry own reached=true")
        running.shown("healthcheck: pry examiner there=true reached=[]")
        running.shown("healthcheck: pry reaper there=true reached=[]")


def test_output_without_end_is_cut_and_does_not_hold_up_init(folder: pathlib.Path) -> None:
    contents = witness_image("/check", "noise", settings={"timeout_ms": 500})
    with launched(folder / "launcher", contents, folder, debug=True) as running:
        running.shown(told("null", because("it took too long and was killed")))
        shown = running.console.partition("the user process is")[0]
        lines = re.findall(r"healthcheck: (.*)", shown)
        assert 1000 < sum(len(line) + 1 for line in lines) <= 4097
        running.process.terminate()
        assert running.event("exited")["code"] == 0


def test_what_a_check_writes_is_shown_in_a_debug_enclave_alone(folder: pathlib.Path) -> None:
    contents = witness_image("/check", "exit", "1", debug=False)
    with launched(folder / "launcher", contents, folder) as running:
        running.shown(told("false", because("exit code 1")))
        assert "witness" not in running.console


def test_a_data_plane_that_comes_back_hears_the_verdict(folder: pathlib.Path) -> None:
    with launched(folder / "launcher", witness_image("/check"), folder, debug=True) as running:
        running.shown(told("true", None))
        os.kill(data_plane(running), 9)
        assert eventually(lambda: running.console.count(told("true", None)) == 2)
        assert running.console.count("the user process starts") == 1


def data_plane(running: Launched) -> int:
    init = running.event("started")["init_pid"]
    children = pathlib.Path(f"/proc/{init}/task/{init}/children").read_text().split()
    (found,) = [
        int(pid)
        for pid in children
        if b"data-plane" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        and pathlib.Path(f"/proc/{pid}/stat").read_text().split()[3] == str(init)
    ]
    return found


def test_a_process_that_is_started_again_is_checked_anew_and_finds_its_volumes(
    folder: pathlib.Path, uid: int | None
) -> None:
    """A volume outlives the process and not the enclave; so does what it wrote there."""
    contents = witness_image(
        "/check",
        rootfs=[Entry(name="rootfs/data", mode=DIRECTORY | 0o755)],
        env=[("LEAVE", "/data/left"), ("LOOK", "/data")],
        process={"volumes": ["/data"]},
    )
    with launched(folder / "launcher", contents, folder, uid=uid, debug=True) as running:
        running.shown('heard {"type":"process_exited","code":3')
        running.shown(told("true", None))
        console = running.console
    after = console.partition('heard {"type":"process_exited","code":3')[2]
    assert told("null", None) in after
    main = what_runs.witness(console, "init: process: ")
    assert main["folders"]["/data"]["is_mount"]
    assert [line.split()[0] for line in main["folders"]["/data"]["entries"]] == ["left"]


def test_healthcheck_of_enclave_toml_wins(folder: pathlib.Path) -> None:
    """Also over a process.json that the builder would not write."""
    check = {"path": "/up", "port": None}
    contents = witness_image("/check", config={"healthcheck": check})
    with launched(folder / "launcher", contents, folder, debug=True) as running:
        running.shown("process: witness")
        running.process.terminate()
        running.event("exited")
    assert "process_health" not in running.console
    assert "healthcheck:" not in running.console


@pytest.mark.parametrize(
    ("process", "reason"),
    [
        (
            {"healthcheck": {"argv": ["/check"], **QUICK, "retries": 0}},
            "`healthcheck.retries` is 0",
        ),
        ({"healthcheck": {"argv": ["/check"]}}, "missing field `interval_ms`"),
        ({"stop_signal": 0}, "`stop_signal` is not between 1 and 64"),
        ({"volumes": ["/proc/x"]}, "`volumes` has a path"),
        ({"volumes": ["/app"]}, "VOLUME `/app`: Not a directory"),
        ({"surprise": 1}, "unknown field `surprise`"),
    ],
)
def test_settings_that_cannot_be_honored_refuse_the_boot(
    folder: pathlib.Path, process: dict[str, object], reason: str
) -> None:
    contents = witness_image(process=process)
    with launched(folder / "launcher", contents, folder, debug=True) as running:
        running.shown(reason)
        assert "the user process starts" not in running.console


def test_files_that_do_not_fit_into_the_volumes_refuse_the_boot(folder: pathlib.Path) -> None:
    """Volumes are a quarter of the memory; the root, which is half, has room for the same file."""
    rootfs = [
        Entry(name="rootfs/data", mode=DIRECTORY | 0o755),
        Entry(name="rootfs/data/big", mode=FILE | 0o644, data=bytes(40 << 20)),
    ]
    contents = witness_image(rootfs=rootfs, process={"volumes": ["/data"]})
    with launched(
        folder / "launcher", contents, folder, debug=True, memory_bytes=128 << 20
    ) as running:
        running.shown("need more memory than the enclave has for volumes")
    (folder / "second").mkdir()
    with launched(
        folder / "launcher", contents, folder / "second", debug=True, memory_bytes=256 << 20
    ) as running:
        running.shown("process: witness")
