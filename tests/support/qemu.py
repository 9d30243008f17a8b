"""Starts the kernel and ramdisks of an EIF in QEMU, without KVM and without a network.

It is what an enclave does on another hypervisor: the kernel of the image, its command line, its
ramdisks one after the other. What comes of the console is kept.
"""

import dataclasses
import pathlib
import shutil
import subprocess
from collections.abc import Sequence

import pytest

from cloister.build.eif import Kind, open_eif

PROGRAM = "qemu-system-x86_64"
MACHINES = {"q35": ("-M", "q35,accel=tcg"), "microvm": ("-M", "microvm,acpi=off,accel=tcg")}
"""One with ACPI; one without, whose devices are on the command line and in the MP table."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Booted:
    """How a guest ended.

    Args:
        console: Everything that it printed.
        has_ended: It switched itself off before the deadline.
    """

    console: str
    has_ended: bool

    def after(self, *lines: str) -> None:
        """The lines are on the console, in this order."""
        at = 0
        for line in lines:
            found = self.console.find(line, at)
            assert found >= 0, f"no `{line}` after {at} in:\n{self.console[-6000:]}"
            at = found + len(line)


def skip_without() -> None:
    """Skips a test where there is no QEMU."""
    if shutil.which(PROGRAM) is None:
        pytest.skip(f"`{PROGRAM}` is not there: apt-get install qemu-system-x86")


def boot(  # noqa: PLR0913 - what a machine is made of
    eif: pathlib.Path,
    folder: pathlib.Path,
    *,
    machine: str = "q35",
    memory_mib: int = 1024,
    cmdline: str = "",
    options: Sequence[str] = (),
    seconds: float = 180,
) -> Booted:
    """Boots an image until it switches itself off, or the deadline.

    Args:
        eif: The image.
        folder: Where kernel and ramdisk are put.
        machine: ``q35`` or ``microvm``.
        memory_mib: Memory of the guest.
        cmdline: More words for the command line.
        options: More options of QEMU.
        seconds: The deadline.
    """
    with open_eif(eif) as image:
        kernel, words = image.one(Kind.KERNEL), image.one(Kind.CMDLINE)
        assert kernel is not None
        assert words is not None
        (folder / "kernel").write_bytes(kernel.payload)
        ramdisks = b"".join(bytes(ramdisk.payload) for ramdisk in image.ramdisks)
        (folder / "ramdisks").write_bytes(ramdisks)
        command_line = f"{bytes(words.payload).decode()} {cmdline}".strip()
    command = [
        *(PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *MACHINES[machine],
        *("-cpu", "max", "-smp", "1", "-m", str(memory_mib), "-serial", "stdio"),
        *("-kernel", str(folder / "kernel"), "-initrd", str(folder / "ramdisks")),
        *("-append", command_line, *options),
    ]
    with (folder / "console").open("wb+") as console:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            has_ended = process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            has_ended = False
        finally:
            process.kill()
            process.wait()
        console.seek(0)
        return Booted(console=console.read().decode(errors="replace"), has_ended=has_ended)
