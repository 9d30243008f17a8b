"""Each thing is judged in both states, and every trouble comes with what to do about it."""

import dataclasses
from typing import Any

import pytest

from cloister.doctor import Machine, Needs, State, can_work, examine
from cloister.doctor.readings import BuilderReading, FolderReading, PortReading

GIB = 1 << 30
GOOD = Machine(
    system="Linux",
    release="6.1.0-28-amd64",
    architecture="x86_64",
    is_root=False,
    user_namespace_problem=None,
    namespace_settings={},
    has_id_tools=True,
    has_id_ranges=True,
    missing_programs=[],
    builders=[BuilderReading(name="buildah"), BuilderReading(name="native")],
    memory_bytes=8 * GIB,
    descriptor_limits=(1024, 1 << 20),
    can_limit=True,
    ports=[PortReading(address="127.0.0.1:8443", purpose="`cloister run`")],
    folders=[FolderReading(path=".", purpose="build", free_bytes=50 * GIB)],
    year=2026,
    is_synchronized=True,
    devices={"nitro_enclaves": True, "vsock": True},
    hugepage_bytes=4 * GIB,
    qemu="/usr/bin/qemu-system-x86_64",
)
NEEDS = Needs(memory_bytes=GIB, memory_reason="`enclave.eif`")


def test_a_machine_with_everything_has_nothing_to_fix() -> None:
    for runner in ("sandbox", "nitro"):
        findings = examine(GOOD, dataclasses.replace(NEEDS, runner=runner))
        assert {finding.state for finding in findings} == {State.OK}
        assert can_work(findings)
    assert len({finding.id for finding in findings}) == len(findings)


BAD: dict[str, tuple[str, State, dict[str, Any], str]] = {
    "no Linux": ("kernel", State.FAIL, {"system": "Darwin"}, "Linux"),
    "old kernel": ("kernel", State.FAIL, {"release": "4.19.0"}, "5.10"),
    "arm": ("architecture", State.FAIL, {"architecture": "aarch64"}, "x86_64"),
    "no programs": ("programs", State.FAIL, {"missing_programs": ["x"]}, "make static"),
    "namespaces off": (
        "user-namespaces",
        State.FAIL,
        {
            "user_namespace_problem": "No space left on device",
            "namespace_settings": {"user/max_user_namespaces": "0"},
        },
        "user.max_user_namespaces=15000",
    ),
    "clone forbidden": (
        "user-namespaces",
        State.FAIL,
        {
            "user_namespace_problem": "EPERM",
            "namespace_settings": {"kernel/unprivileged_userns_clone": "0"},
        },
        "unprivileged_userns_clone=1",
    ),
    "apparmor": (
        "user-namespaces",
        State.FAIL,
        {
            "user_namespace_problem": "EPERM",
            "namespace_settings": {"kernel/apparmor_restrict_unprivileged_userns": "1"},
        },
        "apparmor",
    ),
    "in a container": (
        "user-namespaces",
        State.FAIL,
        {"user_namespace_problem": "EPERM"},
        "seccomp",
    ),
    "no newuidmap": ("user-ids", State.WARN, {"has_id_tools": False}, "uidmap"),
    "no range": ("user-ids", State.WARN, {"has_id_ranges": False}, "--add-subuids"),
    "no cgroup": ("cgroups", State.WARN, {"can_limit": False}, "Delegate"),
    "no builder": (
        "builders",
        State.WARN,
        {
            "builders": [
                BuilderReading(name="docker", reason="not there", fix="install"),
                BuilderReading(name="native"),
            ]
        },
        "buildah",
    ),
    "little memory": ("memory", State.FAIL, {"memory_bytes": GIB // 2}, "memory"),
    "few descriptors": ("descriptors", State.WARN, {"descriptor_limits": (1024, 4096)}, "ulimit"),
    "port taken": (
        "port-8443",
        State.FAIL,
        {"ports": [PortReading(address="127.0.0.1:8443", purpose="run", problem="in use")]},
        "--listen",
    ),
    "another port taken": (
        "port-443",
        State.INFO,
        {
            "ports": [
                PortReading(
                    address="0.0.0.0:443", purpose="host", problem="denied", is_needed=False
                )
            ]
        },
        "--listen",
    ),
    "full disk": (
        "disk-build",
        State.WARN,
        {"folders": [FolderReading(path=".", purpose="build", free_bytes=1000)]},
        "cache",
    ),
    "read-only folder": (
        "disk-build",
        State.FAIL,
        {"folders": [FolderReading(path=".", purpose="build", free_bytes=GIB, problem="may not")]},
        "writable",
    ),
    "clock of 1970": ("clock", State.FAIL, {"year": 1970}, "set-ntp"),
    "clock alone": ("clock", State.WARN, {"is_synchronized": False}, "set-ntp"),
    "no Nitro": ("nitro", State.INFO, {"devices": {"vsock": True}}, "EnclaveOptions"),
}


@pytest.mark.parametrize("trouble", BAD)
def test_a_trouble_is_named_with_its_fix(trouble: str) -> None:
    name, state, changes, fix = BAD[trouble]
    findings = examine(dataclasses.replace(GOOD, **changes), NEEDS)
    (found,) = [finding for finding in findings if finding.id == name]
    assert found.state is state
    assert found.fix is not None
    assert fix in found.fix
    assert can_work(findings) is (state is not State.FAIL)
    others = [finding for finding in findings if finding.id != name]
    assert all(finding.state in (State.OK, State.WARN, State.INFO) for finding in others)


def test_what_only_nitro_needs_fails_for_nitro_only() -> None:
    machine = dataclasses.replace(GOOD, devices={}, hugepage_bytes=0)
    assert can_work(examine(machine, NEEDS))
    assert not can_work(examine(machine, dataclasses.replace(NEEDS, runner="nitro")))
    machine = dataclasses.replace(GOOD, hugepage_bytes=0)
    findings = examine(machine, dataclasses.replace(NEEDS, runner="nitro"))
    assert "nitro-memory" in {one.id for one in findings if one.state is State.FAIL}


def test_what_only_the_sandbox_needs_is_a_warning_for_nitro() -> None:
    machine = dataclasses.replace(GOOD, user_namespace_problem="EPERM")
    assert can_work(examine(machine, dataclasses.replace(NEEDS, runner="nitro")))


def test_a_clock_that_nobody_vouches_for_is_no_trouble() -> None:
    findings = examine(dataclasses.replace(GOOD, is_synchronized=None), NEEDS)
    (clock,) = [finding for finding in findings if finding.id == "clock"]
    assert clock.state is State.INFO
