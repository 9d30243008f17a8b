"""The sandbox as a whole: launcher, init and runner, with images written by hand.

The data plane is a script here (``fixture-init``); what it does in earnest is tested with the real
one elsewhere. What the user process may reach is T-16.
"""

import hashlib
import os
import pathlib
import re
import shutil
import socket
import struct
import tempfile
from collections.abc import Iterator

import cbor2
import pytest
from tests.support import static_binaries
from tests.support.sandbox_image import (
    DIRECTORY,
    FILE,
    SYMLINK,
    Entry,
    Launched,
    cpio,
    eventually,
    image,
    launched,
)

from cloister.errors import ConfigError, MalformedImage, MissingInput, RunnerError
from cloister.runners import Launch, SandboxRunner

PASSWD = b"root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n"
GROUP = b"app:x:1001:\nwww:x:33:app\n"


@pytest.fixture(name="folder")
def folder_of_everybody() -> Iterator[pathlib.Path]:
    """A short path that another user may enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="sandbox-") as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        shutil.copy(static_binaries.launcher(), folder / "launcher")
        (folder / "launcher").chmod(0o755)
        yield folder


def probe_image(*words: str, rootfs: list[Entry] | None = None, **settings: object) -> bytes:
    probe = static_binaries.fixture("fixture-probe").read_bytes()
    return image(
        static_binaries.fixture("fixture-init"),
        [Entry(name="rootfs/probe", data=probe), *(rootfs or [])],
        **{"argv": ["/probe", *words], "debug": True, **settings},  # type: ignore[arg-type]
    )


def accounts() -> list[Entry]:
    return [
        Entry(name="rootfs/etc", mode=DIRECTORY | 0o755),
        Entry(name="rootfs/etc/passwd", mode=FILE | 0o644, data=PASSWD),
        Entry(name="rootfs/etc/group", mode=FILE | 0o644, data=GROUP),
    ]


def described(running: Launched) -> dict[str, str]:
    console = running.shown("process: probe done")
    lines = re.findall(r"process: probe (env [^=]*|\S+)[= ](.*)", console)
    return dict(lines)


def pcr(*parts: bytes) -> str:
    inner = hashlib.sha384(b"".join(parts)).digest()
    return hashlib.sha384(bytes(48) + inner).hexdigest()


def test_an_enclave_starts_drains_and_leaves_nothing(folder: pathlib.Path) -> None:
    contents = probe_image("describe", debug=False)
    (folder / "image.eif").write_bytes(contents)
    console: list[str] = []
    launcher = folder / "launcher"
    runner = SandboxRunner(dev_ca_dir=folder / "ca", console=console.append, launcher=launcher)
    endpoints = runner.prepare(folder / "run")
    assert endpoints.ingress == f"unix:{folder}/run/v/enclave-7777.sock"
    enclave = runner.start(
        Launch(image=folder / "image.eif", run_dir=folder / "run", module_id="i-1")
    )
    assert enclave.wait(0.2) is None
    ended = enclave.stop()
    assert ended.is_clean
    assert enclave.kill() == ended
    assert any("drained" in line for line in console)
    assert not (folder / "run").exists()
    assert {"nsm-root.key", "nsm-root.pem"} <= {path.name for path in (folder / "ca").iterdir()}


def test_the_nsm_outside_holds_the_registers_of_the_image(folder: pathlib.Path) -> None:
    boot = cpio([Entry(name="init", data=static_binaries.fixture("fixture-init").read_bytes())])
    contents = probe_image("describe", debug=False)
    application = contents[contents.index(boot) + len(boot) + 12 :]
    with launched(folder / "launcher", contents, folder) as running:
        pcrs = running.event("started")["pcrs"]
        assert isinstance(pcrs, dict)
        cmdline = b"console=ttyS0"
        assert pcrs["0"] == pcr(cmdline, boot, application)
        assert pcrs["1"] == pcr(cmdline, boot)
        assert pcrs["2"] == pcr(application)
        for index in "012":
            answer = nsm(running, {"DescribePCR": {"index": int(index)}})
            assert answer["DescribePCR"]["data"].hex() == pcrs[index]
            assert answer["DescribePCR"]["lock"] is True


def nsm(running: Launched, request: object) -> dict[str, dict[str, bytes]]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(running.run_dir / "v" / "nsm.sock"))
        message = cbor2.dumps(request)
        client.sendall(struct.pack(">I", len(message)) + message)
        with client.makefile("rb") as answer:
            (length,) = struct.unpack(">I", answer.read(4))
            found = cbor2.loads(answer.read(length))
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", {"uid": "0", "gid": "0", "groups": "[0]", 'env "HOME"': '"/root"'}),
        (
            "app",
            {"uid": "1000", "gid": "1001", "groups": "[33, 1001]", 'env "HOME"': '"/home/app"'},
        ),
        ("1000:33", {"uid": "1000", "gid": "33", "groups": "[33]", 'env "HOME"': '"/home/app"'}),
        ("4242:4343", {"uid": "4242", "gid": "4343", "groups": "[4343]", 'env "HOME"': '"/"'}),
    ],
)
def test_user_of_the_image_is_honored(
    folder: pathlib.Path, user: str, expected: dict[str, str]
) -> None:
    if os.getuid() != 0:
        pytest.skip("other users need a range of ids; see the test with newuidmap")
    contents = probe_image("describe", rootfs=accounts(), user=user)
    with launched(folder / "launcher", contents, folder, debug=True) as running:
        found = described(running)
    assert {key: found[key] for key in expected} == expected


def test_command_environment_and_folder_are_exact(folder: pathlib.Path) -> None:
    """argv[0] is found in the image's PATH, WORKDIR is made, secrets keep their bytes."""
    contents = probe_image(
        rootfs=[
            Entry(name="rootfs/tools", mode=DIRECTORY | 0o755),
            Entry(name="rootfs/tools/app", mode=SYMLINK | 0o777, data=b"/probe"),
        ],
        argv=["app", "describe", "two words", ""],
        env=[("PATH", "/nowhere:/tools"), ("PLAIN", "a=b"), ("SECRET", "overlaid")],
        cwd="/work/deep",
    )
    with launched(folder / "launcher", contents, folder, debug=True) as running:
        found = described(running)
    assert found["argv"] == '["app", "describe", "two words", ""]'
    assert found["cwd"] == 'Ok("/work/deep")'
    assert found['env "PLAIN"'] == '"a=b"'
    assert found['env "SECRET"'] == r'"exact\n\"bytes\""'
    assert found['env "EV_INITIALIZED"'] == '"true"'
    assert found['env "PATH"'] == '"/nowhere:/tools"'


def test_a_folder_that_is_made_can_be_entered_whoever_starts_the_sandbox(
    folder: pathlib.Path,
) -> None:
    """WORKDIR is root's with mode 0755, whatever the umask of the launcher's caller."""
    if os.getuid() != 0:
        pytest.skip("other users need a range of ids; see the test with newuidmap")
    contents = probe_image("describe", rootfs=accounts(), user="app", cwd="/work/deep")
    before = os.umask(0o077)
    try:
        with launched(folder / "launcher", contents, folder, debug=True) as running:
            found = described(running)
    finally:
        os.umask(before)
    assert (found["uid"], found["cwd"]) == ("1000", 'Ok("/work/deep")')


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"argv": ["missing"]}, "no program `missing` in the image"),
        ({"argv": ["/etc"], "rootfs": accounts()}, "cannot run `/etc`"),
        ({"user": "nobody"}, "not in the image's /etc/passwd"),
        ({"user": "0:nogroup"}, "not in the image's /etc/group"),
        ({"user": "99999999"}, "does not exist in this sandbox"),
    ],
)
def test_a_process_that_cannot_start_says_why(
    folder: pathlib.Path, settings: dict[str, object], reason: str
) -> None:
    if "user" in settings and os.getuid() != 0:
        pytest.skip("without a range the launcher refuses before the process does")
    contents = probe_image("describe", **settings)  # type: ignore[arg-type]
    with launched(folder / "launcher", contents, folder, debug=True) as running:
        running.shown(reason)


def test_a_process_that_ends_is_started_again_later_and_later(folder: pathlib.Path) -> None:
    contents = probe_image("exit", "3")
    with launched(folder / "launcher", contents, folder, debug=True) as running:
        console = running.shown('"backoff_ms":800')
    told = re.findall(r'"process_exited","code":3,"signal":null,"backoff_ms":(\d+)', console)
    assert told == ["100", "200", "400", "800"]


def test_a_data_plane_that_dies_is_back_within_a_second(folder: pathlib.Path) -> None:
    """The user process goes on meanwhile, and the new data plane is told of it."""
    with launched(folder / "launcher", probe_image("describe"), folder, debug=True) as running:
        running.shown("process: probe done")
        init = running.event("started")["init_pid"]
        children = pathlib.Path(f"/proc/{init}/task/{init}/children").read_text().split()
        planes = [pid for pid in children if b"data-plane" in command_line(pid)]
        assert len(planes) == 1
        os.kill(int(planes[0]), 9)
        running.shown("the data plane ended: signal 9", timeout=1)
        told = r'heard \{"type":"process_started","pid":(\d+),"restarts":0\}'
        assert eventually(lambda: len(re.findall(told, running.console)) == 2, timeout=1)
        running.process.terminate()
        assert running.event("exited")["code"] == 0
    assert running.console.count("the user process starts") == 1


def command_line(pid: str) -> bytes:
    return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_damaged_image_is_refused_and_nothing_is_left(folder: pathlib.Path) -> None:
    contents = bytearray(probe_image("describe"))
    runner = SandboxRunner(dev_ca_dir=folder / "ca", launcher=folder / "launcher")
    launch = Launch(image=folder / "image.eif", run_dir=folder / "run", module_id="i-1")
    with pytest.raises(MissingInput):
        runner.start(launch)
    contents[-1] ^= 1
    launch.image.write_bytes(contents)
    runner.prepare(launch.run_dir)
    with pytest.raises(MalformedImage, match="checksum") as refusal:
        runner.start(launch)
    assert refusal.value.hint is not None
    assert not launch.run_dir.exists()
    contents[-1] ^= 1
    launch.image.write_bytes(contents)
    runner.prepare(launch.run_dir)
    assert runner.start(launch).stop().is_clean


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (Entry(name="rootfs/../../escaped", data=b"x"), "`..`"),
        (Entry(name="/escaped", data=b"x"), "absolute"),
        (Entry(name="rootfs/link/escaped", data=b"x"), "not a folder"),
        (Entry(name="rootfs/null", mode=0o020666), "device node"),
        (Entry(name="rootfs", mode=DIRECTORY | 0o755), "twice"),
        (Entry(name="proc", mode=DIRECTORY | 0o755), "init makes itself"),
        (Entry(name="rootfs/owned", owner=70_000), "70000"),
    ],
)
def test_a_hostile_ramdisk_is_refused_by_name(
    folder: pathlib.Path, entry: Entry, problem: str
) -> None:
    link = Entry(name="rootfs/link", mode=SYMLINK | 0o777, data=str(folder).encode())
    contents = probe_image("describe", rootfs=[link, entry])
    with launched(folder / "launcher", contents, folder) as running:
        failed = running.event("failed")
        assert problem in str(failed["message"])
        assert failed["kind"] == "image"
    assert not list(folder.glob("**/escaped"))
    assert not pathlib.Path("/escaped").exists()


def test_an_image_that_does_not_fit_is_refused_with_the_setting(folder: pathlib.Path) -> None:
    """A kernel would lose files without a word."""
    filler = Entry(name="rootfs/filler", data=bytes(20 << 20))
    contents = probe_image("describe", rootfs=[filler])
    with launched(folder / "launcher", contents, folder, memory_bytes=32 << 20) as running:
        failed = running.event("failed")
    assert "does not fit" in str(failed["message"])
    assert "[resources]" in str(failed["hint"])


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"rootfs": [Entry(name="rootfs/owned", owner=1000)]}, "user 1000"),
        ({"rootfs": accounts(), "user": "app"}, "`app`"),
    ],
    ids=["owner", "user"],
)
def test_without_a_range_other_users_are_refused_with_a_hint(
    folder: pathlib.Path, settings: dict[str, object], named: str
) -> None:
    uid = static_binaries.user_for_tests()
    if uid is None:
        pytest.skip("whether this user has a range is not ours to say")
    contents = probe_image("describe", **settings)  # type: ignore[arg-type]
    with launched(folder / "launcher", contents, folder, uid=uid) as running:
        failed = running.event("failed")
    assert named in str(failed["message"])
    assert "/etc/subuid" in str(failed["hint"])
    assert failed["kind"] == "image"


def test_with_a_range_an_ordinary_user_runs_any_image(folder: pathlib.Path) -> None:
    """Newuidmap and a grant in /etc/subuid, which a mount namespace of the test shows in place."""
    uid = static_binaries.user_for_tests()
    if uid is None or shutil.which("newuidmap") is None:
        pytest.skip("needs root, to show a grant, and newuidmap")
    grant = folder / "grant"
    grant.write_text(f"{uid}:3000000:65536\n")
    passwd = folder / "passwd"
    passwd.write_text(f"{pathlib.Path('/etc/passwd').read_text()}tester:x:{uid}:{uid}::/:/bin/sh\n")
    wrapper = folder / "wrapper"
    wrapper.write_text(
        "#!/bin/bash\n"
        f"mount --bind {grant} /etc/subuid && mount --bind {grant} /etc/subgid && "
        f"mount --bind {passwd} /etc/passwd && "
        f"exec setpriv --reuid {uid} --regid {uid} --clear-groups {folder}/launcher\n"
    )
    wrapper.chmod(0o755)
    outer = folder / "outer"
    outer.write_text(f'#!/bin/bash\nexec unshare --mount "{wrapper}"\n')
    outer.chmod(0o755)
    owned = Entry(name="rootfs/owned", owner=1000)
    contents = probe_image("describe", rootfs=[*accounts(), owned], user="app")
    run = folder / "as-user"
    run.mkdir()
    run.chmod(0o755)
    with launched(outer, contents, run, debug=True, owner=uid) as running:
        found = described(running)
    assert (found["uid"], found["gid"], found["groups"]) == ("1000", "1001", "[33, 1001]")


def test_forbidden_namespaces_are_named_with_the_setting(folder: pathlib.Path) -> None:
    """The limit is per user namespace, so that of a child can be zero without touching ours."""
    forbidden = folder / "forbidden"
    forbidden.write_text(
        "#!/bin/bash\n"
        "exec unshare --user --map-root-user /bin/bash -c "
        f"'echo 0 > /proc/sys/user/max_user_namespaces && exec {folder}/launcher'\n"
    )
    forbidden.chmod(0o755)
    uid = static_binaries.user_for_tests()
    with launched(forbidden, probe_image("describe"), folder, uid=uid) as running:
        failed = running.event("failed")
    assert failed["kind"] == "permission"
    assert "user namespaces" in str(failed["message"])
    assert "user.max_user_namespaces" in str(failed["hint"])


def test_a_bad_specification_is_refused(folder: pathlib.Path) -> None:
    with launched(folder / "launcher", b"", folder, surprise=1) as running:
        assert "surprise" in str(running.event("failed")["message"])
    with pytest.raises(ConfigError):
        Launch(image=folder, run_dir=pathlib.Path("relative"), module_id="i-1")
    runner = SandboxRunner(dev_ca_dir=folder / "ca")
    with pytest.raises(ConfigError, match="at most"):
        runner.prepare(folder / ("x" * 100))


def test_a_launcher_that_cannot_start_is_an_error(folder: pathlib.Path) -> None:
    (folder / "image.eif").write_bytes(b"")
    launch = Launch(image=folder / "image.eif", run_dir=folder / "run", module_id="i-1")
    with pytest.raises(RunnerError):
        SandboxRunner(dev_ca_dir=folder / "ca", launcher=folder / "none").start(launch)
    with pytest.raises(RunnerError, match="before the enclave started"):
        SandboxRunner(dev_ca_dir=folder / "ca", launcher=pathlib.Path("/bin/false")).start(launch)


def test_two_enclaves_run_side_by_side(folder: pathlib.Path) -> None:
    contents = probe_image("describe")
    for name in ["one", "two"]:
        (folder / name).mkdir()
    launcher = folder / "launcher"
    with (
        launched(launcher, contents, folder / "one", debug=True) as one,
        launched(launcher, contents, folder / "two", debug=True) as two,
    ):
        one.shown("probe done")
        two.shown("probe done")
        one.process.terminate()
        assert one.event("exited")["code"] == 0
        assert two.process.poll() is None
