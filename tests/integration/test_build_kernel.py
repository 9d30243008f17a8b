"""An image with a kernel: what is in it, what is measured, and that the sandbox runs it too."""

import datetime as dt
import json
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from tests.support import kernels, sandbox_image, saved_images, static_binaries
from tests.support.project import Project

from cloister import config
from cloister.build import Request, build_image, cpio
from cloister.build.eif import Kind, measure, metadata, open_eif
from cloister.build.image_config import ImageConfig
from cloister.build.kernel import KernelFiles, KernelStore, Module
from cloister.build.kernel.choose import DEFAULT_CMDLINE
from cloister.build.progress import Silent
from cloister.build.request import FromFolder
from cloister.runners import Launch, SandboxRunner

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def project() -> Iterator[Project]:
    """Sockets need short paths, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="kernel-") as name:
        project = Project(pathlib.Path(name))
        project.run("init", "hello")
        kernels.write(project.folder)
        yield project


def with_kernel(project: Project, text: str) -> None:
    kept = project.toml.read_text().partition("[kernel]")[0]
    project.toml.write_text(f"{kept}[kernel]\n{text}\n")


def test_the_sections_of_an_image_with_a_kernel(project: Project) -> None:
    without = project.json("build")
    assert (without["has_kernel"], without["runners"]) == (False, ["sandbox"])
    with_kernel(project, 'image = "bzImage"')
    built = project.json("build")
    assert built["has_kernel"]
    assert built["kernel"] == kernels.VERSION
    assert built["runners"] == ["nitro", "qemu", "sandbox"]
    with open_eif(project.eif) as image:
        kinds = [section.kind for section in image.sections]
        assert kinds == [
            *(Kind.KERNEL, Kind.CMDLINE, Kind.METADATA),
            *(Kind.RAMDISK, Kind.RAMDISK, Kind.SIGNATURE),
        ]
        assert bytes(image.sections[0].payload) == kernels.bzimage()
        assert bytes(image.sections[1].payload) == DEFAULT_CMDLINE.encode()
        said = metadata.decode(bytes(image.sections[2].payload))
        assert measure(image).shown() == built["pcrs"]
    assert said["BuildMetadata"]["KernelVersion"] == kernels.VERSION
    assert said["CustomMetadata"]["cloister"]["runners"] == ["nitro", "qemu", "sandbox"]
    assert said["CustomMetadata"]["cloister"]["kernel"]["cmdline"] == DEFAULT_CMDLINE
    # Kernel and command line are in PCR0 and PCR1; PCR2 is the application's alone.
    changed = [name for name, value in built["pcrs"].items() if without["pcrs"][name] != value]
    assert changed == ["PCR0", "PCR1"]
    assert built["memory_needed"] > without["memory_needed"]


def test_kernel_and_command_line_are_in_the_keys_of_the_cache(project: Project) -> None:
    def registers() -> tuple[str, str]:
        built = project.json("build", "--image", "image.tar")
        assert built["pcrs"] == measure(project.eif).shown()
        return built["reused"], built["pcrs"]["PCR1"]

    saved_images.docker_save(
        project.folder / "image.tar", [saved_images.layer(saved_images.file("app", mode=0o755))]
    )
    with_kernel(project, 'image = "bzImage"')
    assert registers()[0] == "nothing"
    reused, first = registers()
    assert reused == "image"
    with_kernel(project, 'image = "bzImage"\ncmdline = "console=ttyS0"')
    reused, second = registers()
    assert (reused, second != first) == ("files", True)
    kernels.write(project.folder, image=kernels.bzimage(system=b"other code"))
    reused, third = registers()
    assert (reused, third != second) == ("files", True)
    with_kernel(project, "")
    assert registers()[0] == "files"
    kernels.write(project.folder)
    with_kernel(project, 'image = "bzImage"')
    assert registers()[1] == first


def test_what_is_said_of_a_kernel(project: Project) -> None:
    _, told = project.run("build")
    assert "no kernel in it: the image is for the sandbox alone" in told
    with_kernel(project, 'image = "bzImage"')
    first = project.folder / "first.eif"
    _, told = project.run("build", "--output", str(first))
    assert f"kernel {kernels.VERSION}: the image is for nitro, qemu, sandbox" in told
    assert "no kernel" not in told
    shown, _ = project.run("describe", str(first), "--verify")
    assert f"  kernel {kernels.VERSION}, {len(kernels.bzimage())} bytes\n" in shown
    assert f"  command line {DEFAULT_CMDLINE}\n" in shown
    assert "no kernel" not in shown
    described = project.json("describe", str(first))
    assert described["kernel"] == {
        "version": kernels.VERSION,
        "banner": kernels.BANNER,
        "size": len(kernels.bzimage()),
        "cmdline": DEFAULT_CMDLINE,
    }
    with_kernel(project, 'image = "bzImage"\ncmdline = "quiet"')
    project.run("build")
    found = project.json("describe", str(first), "--diff", str(project.eif), status=1)
    touched = {change["section"]: change["pcrs"] for change in found["changes"]}
    assert touched["cmdline"] == ["PCR0", "PCR1"]
    assert "kernel" not in touched


def test_modules_are_where_init_looks(project: Project) -> None:
    """A kernel of the store: its folder is found by `CLOISTER_HOME`."""
    modules = tuple(Module(name=name, content=b"\x7fELF") for name in ("vsock", "nsm"))
    store = KernelStore(project.folder / "home" / "kernels")
    text = kernels.configuration(modules=("VSOCKETS", "NSM"))
    files = KernelFiles(image=kernels.bzimage(), config=text, modules=modules)
    kept = store.keep("fetch", files, key="k", source="s")
    with_kernel(project, 'image = "fetch"')
    home = str(project.folder / "home")
    built = project.json("build", CLOISTER_HOME=home)
    assert built["pcrs"] == measure(project.eif).shown()
    with open_eif(project.eif) as image:
        tree = cpio.read(image.ramdisks[0].payload, at=0)
        entries = [(entry.path, entry.mode & 0o7777) for entry in tree]
        said = metadata.decode(bytes(image.sections[2].payload))
    assert entries == [
        *((b"init", 0o755), (b"modules", 0o755)),
        *((b"modules/nsm.ko", 0o644), (b"modules/vsock.ko", 0o644)),
    ]
    assert said["CustomMetadata"]["cloister"]["kernel"]["name"] == kept.name
    assert json.dumps(said).count(str(project.folder)) == 0


def test_the_sandbox_runs_an_image_with_a_kernel_and_measures_it(project: Project) -> None:
    root = project.folder / "root"
    root.mkdir()
    shutil.copy(static_binaries.fixture("fixture-probe"), root / "probe")
    with_kernel(project, 'image = "bzImage"')
    built = build_image(
        Request(
            toml=config.load(project.toml),
            source=FromFolder(
                folder=root, config=ImageConfig(entrypoint=["/probe"], cmd=["describe"])
            ),
            output=project.eif,
            record=project.folder / "enclave.Dockerfile",
            now=NOW,
            tool_version="0",
            kernels=project.folder / "kernels",
            runtime=static_binaries.fixture("fixture-init").read_bytes(),
        ),
        Silent(),
    )
    lines: list[str] = []
    shutil.copy(static_binaries.launcher(), project.folder / "launcher")
    runner = SandboxRunner(
        dev_ca_dir=project.folder / "ca",
        launcher=project.folder / "launcher",
        console=lines.append,
    )
    run_dir = project.folder / "run"
    runner.prepare(run_dir)
    enclave = runner.start(Launch(image=project.eif, run_dir=run_dir, module_id="i-1"))
    try:
        assert sandbox_image.eventually(lambda: any("process_started" in line for line in lines))
        pcrs = {f"PCR{index}": value.hex() for index, value in enclave.pcrs.items()}
        assert {name: pcrs[name] for name in built.pcrs} == built.pcrs
    finally:
        assert enclave.stop().is_clean, lines
