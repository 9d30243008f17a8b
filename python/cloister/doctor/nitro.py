"""Judges what enclaves of AWS Nitro need of a machine. Pure, as all of the examination is."""

from collections.abc import Callable, Iterator

from cloister.config.setting import as_size
from cloister.doctor.finding import Finding, fail, gib, info, ok, warn
from cloister.doctor.machine import ALLOCATOR, Needs
from cloister.doctor.readings import AllocatorReading, Machine

_State = Callable[[str, str, str], Finding]


def examine_nitro(machine: Machine, needs: Needs) -> Iterator[Finding]:
    """Everything that enclaves on AWS need; failures only where they are what was asked for."""
    state: _State = fail if needs.runner == "nitro" else info
    if needs.runner == "nitro":
        yield warn(
            "runner",
            "this version builds images for nitro, and `cloister run` starts none there",
            "cloister run --runner sandbox",
        )
    yield from _driver(machine, needs, state)
    if machine.allocator is not None:
        yield _allocated(machine.allocator, needs, state)
    elif machine.devices.get("nitro_enclaves"):
        yield state(
            "nitro-allocator", f"there is no {ALLOCATOR}", "dnf install aws-nitro-enclaves-cli"
        )
    if not machine.devices.get("vsock"):
        yield state("vsock", "no /dev/vsock", "modprobe vhost_vsock, or vsock on a guest")
    else:
        yield ok("vsock", "/dev/vsock is there")
    if machine.qemu is None:
        yield info("qemu", "not there; only tests of kernels need it")
    else:
        yield ok("qemu", machine.qemu)


def _driver(machine: Machine, needs: Needs, state: _State) -> Iterator[Finding]:
    if machine.devices.get("nitro_enclaves"):
        if machine.may_use_nitro:
            yield ok("nitro", "the driver of AWS Nitro Enclaves is there")
        else:
            yield state(
                "nitro",
                f"{machine.user} may not use /dev/nitro_enclaves",
                f"as root: usermod -aG ne {machine.user}, then log in again",
            )
        if machine.hugepage_bytes < needs.memory_bytes:
            yield state(
                "nitro-memory",
                f"{gib(machine.hugepage_bytes)} of free huge pages,"
                f" {needs.memory_reason} needs {as_size(needs.memory_bytes)}",
                "raise memory_mib in /etc/nitro_enclaves/allocator.yaml, then"
                " systemctl restart nitro-enclaves-allocator",
            )
        else:
            yield ok("nitro-memory", f"{gib(machine.hugepage_bytes)} of free huge pages")
    else:
        yield state(
            "nitro",
            "no /dev/nitro_enclaves: this is not a parent instance of AWS Nitro Enclaves",
            "start the EC2 instance with EnclaveOptions.Enabled, install aws-nitro-enclaves-cli",
        )


def _allocated(found: AllocatorReading, needs: Needs, state: _State) -> Finding:
    memory = max(needs.memory_bytes, needs.granted_bytes or 0)
    if (found.memory_bytes or 0) >= memory and (found.cpus or 0) >= needs.cpus:
        return ok("nitro-allocator", f"enough is set aside in {ALLOCATOR}")
    return state(
        "nitro-allocator",
        f"{ALLOCATOR} sets aside {gib(found.memory_bytes or 0)} and {found.cpus or 0} CPUs, an"
        f" enclave gets {gib(memory)} and {needs.cpus}",
        f"memory_mib: {-(-memory >> 20)} and cpu_count: {needs.cpus} there, then"
        " systemctl restart nitro-enclaves-allocator",
    )
