"""Kernels as they are: built twice, fetched, and booted with an image in QEMU, without KVM.

What takes a compiler, minutes and packages of Debian is marked ``conformance``. The kernel that is
built stays in ``target/kernels``, so that a second run takes seconds.
"""

import datetime as dt
import hashlib
import os
import pathlib
import tempfile

import pytest
from tests.support import qemu, vsock_host
from tests.support.project import Project

from cloister.build import memory_needed
from cloister.build.eif import metadata, open_eif
from cloister.build.kernel import KernelStore, StoredKernel, facts
from cloister.build.kernel.compile import compile_kernel, fragment
from cloister.build.kernel.fetch import fetch_kernel
from cloister.build.progress import Silent
from cloister.errors import BuilderUnusable

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(7200)]
HOME = pathlib.Path(__file__).parents[2] / "target"
JOBS = len(os.sched_getaffinity(0))
# Nothing of vsock and the NSM is there in a guest without these devices.
STARTED = (
    "Run /init as init process",
    "init: skipped: heartbeat: cannot connect",
    "init: `lo` is up",
    "init: the enclave ends: cannot open the NSM",
    "reboot: Restarting system",
)


@pytest.fixture(scope="module")
def store() -> KernelStore:
    return KernelStore(HOME / "kernels")


@pytest.fixture(scope="module")
def built(store: KernelStore) -> StoredKernel:
    try:
        return compile_kernel(store, Silent(), jobs=JOBS).kernel
    except BuilderUnusable as problem:
        pytest.skip(problem.message)


@pytest.fixture(scope="module")
def fetched(store: KernelStore) -> StoredKernel:
    try:
        return fetch_kernel(store, Silent()).kernel
    except BuilderUnusable as problem:
        pytest.skip(problem.message)


def image_with(kernel: StoredKernel, folder: pathlib.Path) -> tuple[pathlib.Path, str]:
    """An image with this kernel, and the release that its metadata says."""
    project = Project(folder)
    project.run("init", "hello")
    text = project.toml.read_text().partition("[kernel]")[0]
    project.toml.write_text(f'{text}[kernel]\nimage = "{kernel.name}"\n')
    project.run("build", CLOISTER_HOME=str(HOME))
    with open_eif(project.eif) as image:
        said = metadata.decode(bytes(image.sections[2].payload))
    return project.eif, said["BuildMetadata"]["KernelVersion"]


def test_the_built_kernel_has_its_configuration(built: StoredKernel) -> None:
    files = built.files()
    assert files.config is not None
    assert facts.lost(facts.read(fragment()), facts.read(files.config)) == []
    assert files.modules == ()
    assert len(files.image) < 8 << 20


def test_two_folders_give_the_same_bytes(built: StoredKernel, tmp_path: pathlib.Path) -> None:
    other = KernelStore(tmp_path / "a folder with a longer name" / "kernels")
    again = compile_kernel(other, Silent(), jobs=max(1, JOBS - 1), is_cached=False).kernel
    first, second = built.files(), again.files()
    assert hashlib.sha256(first.image).hexdigest() == hashlib.sha256(second.image).hexdigest()
    assert first.config == second.config
    assert built.name == again.name


@pytest.mark.parametrize("machine", ["q35", "microvm"])
def test_the_built_kernel_boots(built: StoredKernel, tmp_path: pathlib.Path, machine: str) -> None:
    qemu.skip_without()
    eif, version = image_with(built, tmp_path)
    started = dt.datetime.now(dt.UTC)
    booted = qemu.boot(eif, tmp_path, machine=machine)
    booted.after(f"Linux version {version} (cloister@cloister)", *STARTED)
    assert "init: 0 kernel modules loaded" in booted.console
    assert booted.has_ended, dt.datetime.now(dt.UTC) - started
    for trouble in ("Kernel panic", "Oops", "Unknown kernel command line"):
        assert trouble not in booted.console.replace(NOMODULES, "")


def test_the_least_memory_that_build_allows_is_enough(
    built: StoredKernel, tmp_path: pathlib.Path
) -> None:
    qemu.skip_without()
    eif, version = image_with(built, tmp_path)
    with open_eif(eif) as image:
        ramdisks = sum(section.size for section in image.ramdisks)
    needed = memory_needed(ramdisks, kernel=len(built.files().image))
    booted = qemu.boot(eif, tmp_path, memory_mib=needed >> 20)
    booted.after(f"Linux version {version}", *STARTED)
    assert "rootfs image is not" not in booted.console
    assert "Initramfs unpacking failed" not in booted.console


def test_the_fetched_kernel_boots_with_its_modules(
    fetched: StoredKernel, tmp_path: pathlib.Path
) -> None:
    qemu.skip_without()
    eif, version = image_with(fetched, tmp_path)
    booted = qemu.boot(eif, tmp_path)
    booted.after(f"Linux version {version}", "init: 5 kernel modules loaded", *STARTED[1:])
    assert "module verification failed" not in booted.console
    assert booted.has_ended


def test_the_heartbeat_reaches_the_host(built: StoredKernel, tmp_path: pathlib.Path) -> None:
    """0xB7 to CID 3, port 9000, and back: what AWS's host side waits for, over virtio alone."""
    qemu.skip_without()
    eif, _ = image_with(built, tmp_path)
    with tempfile.TemporaryDirectory(prefix="vsock-") as short:
        path = pathlib.Path(short) / "vhost"
        with vsock_host.answering(path, echoed={HEARTBEAT_PORT}) as host:
            options = host.options(path, MEMORY_MIB)
            booted = qemu.boot(
                eif, tmp_path, machine="microvm", memory_mib=MEMORY_MIB, options=options
            )
    booted.after(STARTED[0], "init: heartbeat answered", *STARTED[2:])
    assert host.said == {HEARTBEAT_PORT: b"\xb7"}


HEARTBEAT_PORT = 9000
MEMORY_MIB = 512
NOMODULES = 'Unknown kernel command line parameters "nomodules", will be passed to user space.'
