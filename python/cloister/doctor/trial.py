"""Starts an enclave without an application, as ``cloister run`` starts one, and ends it.

Nothing else tells whether the sandbox works: a setting may be right and a security profile forbid
it, or allow it to ``unshare`` and not to our launcher. The image has the shipped init and nothing
else, so it is as small as an image can be. Nothing of it stays: no folder, no development root.
"""

import pathlib
import tempfile
import threading

from cloister.build import runtime
from cloister.build.eif import Kind, Payload, write
from cloister.build.image import boot_tree
from cloister.build.ramdisk import Ramdisk
from cloister.doctor.readings import TrialReading
from cloister.errors import CloisterError
from cloister.runners import Launch, SandboxRunner


def try_enclave() -> TrialReading:
    """Starts and ends one; :data:`SECONDS` at most.

    A launcher that does not answer is left behind in a thread of its own: it ends with this
    process, and so does its folder.
    """
    found: list[TrialReading] = []
    thread = threading.Thread(target=lambda: found.append(_try()), daemon=True)
    thread.start()
    thread.join(SECONDS)
    if found:
        return found[0]
    return TrialReading(
        problem=f"no answer in {SECONDS:.0f} s", fix="try again when the machine is less busy"
    )


def _try() -> TrialReading:
    try:
        with tempfile.TemporaryDirectory(prefix="cloister-", ignore_cleanup_errors=True) as name:
            return _started(pathlib.Path(name))
    except CloisterError as problem:
        return TrialReading(problem=problem.message, fix=problem.hint)
    except OSError as problem:
        return TrialReading(problem=str(problem))


def _started(folder: pathlib.Path) -> TrialReading:
    image = folder / "empty.eif"
    boot = Ramdisk.of(boot_tree(runtime.enclave_binary()))
    with image.open("wb") as file:
        payload = Payload(Kind.RAMDISK, boot.size, boot.blocks())
        write(file, [payload], memory=MEMORY, cpus=1)
    unset: list[str] = []
    has_init_spoken = threading.Event()

    def console(line: str) -> None:
        if line.startswith(UNSET):
            unset.append(line.removeprefix(UNSET))
        elif line.startswith("init:"):
            has_init_spoken.set()

    runner = SandboxRunner(dev_ca_dir=folder / "root", console=console)
    runner.prepare(folder / "run")
    enclave = runner.start(
        Launch(
            image=image,
            run_dir=folder / "run",
            module_id="i-doctor-enc0",
            memory_bytes=MEMORY,
            cpus=1,
        )
    )
    # The launcher says which limits it could not set before init says its first word.
    has_init_spoken.wait(SECONDS)
    enclave.kill()
    return TrialReading(unset=tuple(unset))


SECONDS = 5.0
"""It takes a tenth of one; the rest is for a machine that is busy."""
MEMORY = 64 << 20
UNSET = "cloister-sandbox: not set: "
"""How the launcher begins a line about a limit (`rust/sandbox/src/run.rs`)."""
