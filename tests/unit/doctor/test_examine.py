"""Each thing is judged in both states, and every trouble comes with what to do about it."""

import dataclasses
from typing import Any

import pytest

from cloister.doctor import Machine, Needs, State, can_work, examine
from cloister.doctor.readings import (
    AllocatorReading,
    BuilderReading,
    DockerfileReading,
    FolderReading,
    PortFault,
    PortReading,
    TrialReading,
)

GIB = 1 << 30
GOOD = Machine(
    system="Linux",
    release="6.1.0-28-amd64",
    architecture="x86_64",
    user="ann",
    is_root=False,
    has_only_root=False,
    user_namespace_problem=None,
    namespace_settings={},
    trial=TrialReading(),
    has_id_tools=True,
    has_id_ranges=True,
    missing_programs=[],
    builders=[BuilderReading(name="buildah"), BuilderReading(name="native")],
    dockerfile=DockerfileReading(path="./Dockerfile", container_reason="./Dockerfile:2: RUN"),
    memory_bytes=8 * GIB,
    descriptor_limits=(1 << 20, 1 << 20),
    ports=[PortReading(address="127.0.0.1:8443", purpose="`cloister run`")],
    folders=[FolderReading(path=".", purpose="build", free_bytes=50 * GIB)],
    year=2026,
    is_synchronized=True,
    devices={"nitro_enclaves": True, "vsock": True},
    may_use_nitro=True,
    allocator=AllocatorReading(memory_bytes=4 * GIB, cpus=2),
    hugepage_bytes=4 * GIB,
    qemu="/usr/bin/qemu-system-x86_64",
)
NEEDS = Needs(memory_bytes=GIB, memory_reason="`enclave.eif`", granted_bytes=GIB)
FORBIDDEN = TrialReading(problem="this system forbids user namespaces", fix="sysctl")
NO_CONTAINERS = [
    BuilderReading(name="docker", reason="not there", fix="install"),
    BuilderReading(name="native"),
]


def test_a_machine_with_everything_has_nothing_to_fix() -> None:
    findings = examine(GOOD, NEEDS)
    assert {finding.state for finding in findings} == {State.OK}
    assert can_work(findings)
    assert len({finding.id for finding in findings}) == len(findings)


def test_a_parent_instance_with_everything_still_hears_what_this_version_cannot() -> None:
    findings = examine(GOOD, dataclasses.replace(NEEDS, runner="nitro"))
    assert {one.id for one in findings if one.state is not State.OK} == {"runner"}
    assert can_work(findings)


BAD: dict[str, tuple[str, State, dict[str, Any], str]] = {
    "no Linux": ("kernel", State.FAIL, {"system": "Darwin"}, "Linux"),
    "old kernel": ("kernel", State.FAIL, {"release": "4.19.0"}, "5.10"),
    "arm": ("architecture", State.FAIL, {"architecture": "aarch64"}, "x86_64"),
    "no programs": ("programs", State.FAIL, {"missing_programs": ["x"]}, "make static"),
    "namespaces off": (
        "user-namespaces",
        State.FAIL,
        {
            "trial": FORBIDDEN,
            "user_namespace_problem": "No space left on device",
            "namespace_settings": {"user/max_user_namespaces": "0"},
        },
        "user.max_user_namespaces=15000",
    ),
    "clone forbidden": (
        "user-namespaces",
        State.FAIL,
        {
            "trial": FORBIDDEN,
            "user_namespace_problem": "EPERM",
            "namespace_settings": {"kernel/unprivileged_userns_clone": "0"},
        },
        "unprivileged_userns_clone=1",
    ),
    "apparmor": (
        "user-namespaces",
        State.FAIL,
        {
            "trial": FORBIDDEN,
            "user_namespace_problem": "EPERM",
            "namespace_settings": {"kernel/apparmor_restrict_unprivileged_userns": "1"},
        },
        "apparmor",
    ),
    "in a container": (
        "user-namespaces",
        State.FAIL,
        {"trial": FORBIDDEN, "user_namespace_problem": "EPERM"},
        "seccomp",
    ),
    "no newuidmap": ("user-ids", State.WARN, {"has_id_tools": False}, "uidmap"),
    "no range": ("user-ids", State.WARN, {"has_id_ranges": False}, "--add-subuids"),
    "no cgroup": (
        "cgroups",
        State.WARN,
        {"trial": TrialReading(unset=("memory limit: Permission denied",))},
        "systemd-run",
    ),
    "no builder": (
        "builders",
        State.WARN,
        {"builders": NO_CONTAINERS, "dockerfile": None},
        "buildah",
    ),
    "no builder for this Dockerfile": (
        "dockerfile",
        State.FAIL,
        {"builders": NO_CONTAINERS},
        "buildah",
    ),
    "no Dockerfile": (
        "dockerfile",
        State.WARN,
        {"dockerfile": DockerfileReading(path="./Dockerfile", is_there=False)},
        "--image",
    ),
    "no sandbox": (
        "sandbox",
        State.FAIL,
        {"trial": TrialReading(problem="cannot mount /proc inside", fix="systempaths=unconfined")},
        "systempaths",
    ),
    "root alone": (
        "user-ids",
        State.WARN,
        {"is_root": True, "has_only_root": True},
        "more ids",
    ),
    "little memory": ("memory", State.FAIL, {"memory_bytes": GIB // 2}, "memory"),
    "few descriptors": (
        "descriptors",
        State.WARN,
        {"descriptor_limits": (1024, 4096)},
        "limits.conf",
    ),
    "few descriptors at first": (
        "descriptors",
        State.WARN,
        {"descriptor_limits": (1024, 1 << 20)},
        "ulimit -n 20256",
    ),
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
        "ss -ltnp",
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
    failed = {finding.id for finding in findings if finding.state is State.FAIL}
    # Without namespaces no enclave starts, so these two go together.
    assert failed - {name} <= ({"sandbox"} if name == "user-namespaces" else set())


PORTS: dict[str, tuple[PortReading, list[str], list[str]]] = {
    "taken, and needed": (
        PortReading(address="127.0.0.1:8443", purpose="run", problem="in use"),
        ["ss -ltnp", "--listen"],
        ["sysctl"],
    ),
    "taken, and of the host": (
        PortReading(address="0.0.0.0:3032", purpose="host", problem="in use", is_needed=False),
        ["ss -ltnp"],
        ["--listen"],
    ),
    "below what this user may have": (
        PortReading(
            address="127.0.0.1:443", purpose="run", problem="denied", fault=PortFault.FORBIDDEN
        ),
        ["ip_unprivileged_port_start=443", "--listen"],
        ["ss -ltnp"],
    ),
    "of another machine": (
        PortReading(
            address="192.0.2.1:8443", purpose="run", problem="no", fault=PortFault.ELSEWHERE
        ),
        ["ip address"],
        ["ss -ltnp"],
    ),
}


@pytest.mark.parametrize("port", PORTS)
def test_each_fault_of_a_port_has_its_own_fix(port: str) -> None:
    reading, wanted, unwanted = PORTS[port]
    findings = examine(dataclasses.replace(GOOD, ports=[reading]), NEEDS)
    (found,) = [finding for finding in findings if finding.id.startswith("port-")]
    assert found.fix is not None
    assert all(word in found.fix for word in wanted)
    assert not any(word in found.fix for word in unwanted)


def test_only_what_lacks_is_to_be_installed_or_added() -> None:
    for tools, ranges, wanted, unwanted in (
        (True, False, "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ann", "apt"),
        (False, True, "apt-get install uidmap", "usermod"),
    ):
        machine = dataclasses.replace(GOOD, has_id_tools=tools, has_id_ranges=ranges)
        (found,) = [one for one in examine(machine, NEEDS) if one.id == "user-ids"]
        assert "in the sandbox, and built by buildah or podman" in found.found
        assert wanted in str(found.fix)
        assert unwanted not in str(found.fix)


def test_files_of_an_enclave_that_cannot_be_used_are_findings() -> None:
    """Without its settings nothing is built; without the image there, another one is."""
    findings = examine(GOOD, dataclasses.replace(NEEDS, settings_problem="enclave.toml:2:1: no"))
    (found,) = [one for one in findings if one.state is not State.OK]
    assert (found.id, found.state) == ("settings", State.FAIL)
    assert "enclave.toml:2:1" in found.found
    findings = examine(GOOD, dataclasses.replace(NEEDS, image_problem="it is damaged"))
    (found,) = [one for one in findings if one.state is not State.OK]
    assert (found.id, found.state) == ("image", State.WARN)
    assert "cloister build" in str(found.fix)


def test_a_kernel_is_said_with_what_it_lacks() -> None:
    needs = dataclasses.replace(NEEDS, kernel="Linux 6.12 (build), for nitro, qemu, sandbox")
    found = {one.id: one for one in examine(GOOD, needs)}
    assert found["kernel-image"].state is State.OK
    lacking = dataclasses.replace(needs, kernel_warnings=("it lacks NF_TABLES",))
    (warned,) = [one for one in examine(GOOD, lacking) if one.state is not State.OK]
    assert (warned.id, warned.state) == ("kernel-image-1", State.WARN)
    absent = dataclasses.replace(NEEDS, kernel_problem=("there is none", "cloister kernel build"))
    (failed,) = [one for one in examine(GOOD, absent) if one.state is not State.OK]
    assert (failed.state, failed.fix) == (State.FAIL, "cloister kernel build")
    assert not can_work(examine(GOOD, absent))


def test_the_folder_of_records_needs_little_room() -> None:
    for free, state in ((100 << 20, State.OK), (1 << 20, State.WARN)):
        folders = [FolderReading(path="/home", purpose="state", free_bytes=free)]
        findings = examine(dataclasses.replace(GOOD, folders=folders), NEEDS)
        (found,) = [one for one in findings if one.id == "disk-state"]
        assert found.state is state


def test_a_driver_that_this_user_may_not_use_is_noticed() -> None:
    machine = dataclasses.replace(GOOD, may_use_nitro=False)
    findings = examine(machine, dataclasses.replace(NEEDS, runner="nitro"))
    (found,) = [one for one in findings if one.id == "nitro"]
    assert found.state is State.FAIL
    assert "usermod -aG ne ann" in str(found.fix)


def test_what_only_nitro_needs_fails_for_nitro_only() -> None:
    machine = dataclasses.replace(GOOD, devices={}, hugepage_bytes=0)
    assert can_work(examine(machine, NEEDS))
    assert not can_work(examine(machine, dataclasses.replace(NEEDS, runner="nitro")))
    machine = dataclasses.replace(
        GOOD, hugepage_bytes=0, allocator=AllocatorReading(memory_bytes=GIB // 2, cpus=2)
    )
    findings = examine(machine, dataclasses.replace(NEEDS, runner="nitro"))
    failed = {one.id: one for one in findings if one.state is State.FAIL}
    assert failed.keys() == {"nitro-memory", "nitro-allocator"}
    assert "memory_mib: 1024" in str(failed["nitro-allocator"].fix)


def test_what_only_the_sandbox_needs_is_a_warning_for_nitro() -> None:
    machine = dataclasses.replace(GOOD, user_namespace_problem="EPERM", trial=FORBIDDEN)
    assert not can_work(examine(machine, NEEDS))
    assert can_work(examine(machine, dataclasses.replace(NEEDS, runner="nitro")))


def test_an_enclave_that_started_outweighs_another_program() -> None:
    """`unshare` may be absent, or forbidden what our launcher is allowed."""
    machine = dataclasses.replace(GOOD, user_namespace_problem="there is no `unshare`")
    assert {one.state for one in examine(machine, NEEDS)} == {State.OK}


def test_an_image_that_is_too_large_for_its_settings_is_noticed() -> None:
    """`[resources] memory` decides, however much memory the machine has."""
    findings = examine(GOOD, dataclasses.replace(NEEDS, memory_bytes=2 * GIB))
    (found,) = [finding for finding in findings if finding.state is State.FAIL]
    assert found.id == "memory-granted"
    assert 'memory = "2GiB"' in str(found.fix)


def test_who_has_a_port_is_said() -> None:
    port = PortReading(
        address="127.0.0.1:8443", purpose="run", problem="in use", holder="nginx, process 7"
    )
    findings = examine(dataclasses.replace(GOOD, ports=[port]), NEEDS)
    (found,) = [finding for finding in findings if finding.id == "port-8443"]
    assert "nginx, process 7" in found.found


def test_no_limit_of_descriptors_is_no_trouble() -> None:
    findings = examine(dataclasses.replace(GOOD, descriptor_limits=(-1, -1)), NEEDS)
    (found,) = [finding for finding in findings if finding.id == "descriptors"]
    assert found.state is State.OK


def test_a_clock_that_nobody_vouches_for_is_no_trouble() -> None:
    findings = examine(dataclasses.replace(GOOD, is_synchronized=None), NEEDS)
    (clock,) = [finding for finding in findings if finding.id == "clock"]
    assert clock.state is State.INFO
