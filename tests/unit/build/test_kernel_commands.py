"""``cloister kernel``: what is there, and a kernel that is built, as a user sees them."""

import hashlib
import json
import pathlib
import subprocess
from typing import Any

import pytest
from tests.support import kernels
from tests.support.project import Project

from cloister.build.kernel import KernelFiles, KernelStore, Module, tools
from cloister.errors import BuilderUnusable


@pytest.fixture
def project(tmp_path: pathlib.Path) -> Project:
    return Project(tmp_path)


def store(project: Project) -> KernelStore:
    return KernelStore(project.folder / "home" / "kernels", aws=project.folder / "aws")


def home(project: Project) -> dict[str, str]:
    return {"CLOISTER_HOME": str(project.folder / "home")}


def listed(project: Project) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = project.json("kernel", "list", **home(project))["kernels"]
    return [kernel for kernel in found if kernel["kind"] != "aws"]


def test_an_empty_list_says_how_to_get_a_kernel(project: Project) -> None:
    out, told = project.run("kernel", "list", **home(project))
    if not out.strip():
        assert "`cloister kernel build`" in told
    assert listed(project) == []


def test_the_list_says_what_matters_of_a_kernel(project: Project) -> None:
    image = kernels.bzimage()
    store(project).keep(
        "build", KernelFiles(image=image, config=kernels.configuration()), key="k", source="src 1"
    )
    modules = tuple(Module(name=name, content=b"m") for name in ("vsock", "nsm"))
    text = kernels.configuration(
        without=("VIRTIO_MMIO_CMDLINE_DEVICES", "NF_TABLES"), modules=("VSOCKETS", "NSM")
    )
    files = KernelFiles(image=image, config=text, modules=modules)
    fetched = store(project).keep("fetch", files, key="f", source="src 2")
    first, second = listed(project)
    assert first["name"] == fetched.name
    assert (first["runners"], first["modules"]) == (["qemu", "sandbox"], ["vsock", "nsm"])
    assert "nomodules" not in first["cmdline"]
    assert second["runners"] == ["nitro", "qemu", "sandbox"]
    assert second["sha384"] == hashlib.sha384(image).hexdigest()
    assert (second["size"], second["version"]) == (len(image), kernels.VERSION)
    assert (second["source"], second["modules"]) == ("src 1", [])
    assert {second["options"][name] for name in ("NSM", "VSOCKETS", "NF_TABLES")} == {"y"}
    assert (first["options"]["NSM"], first["options"]["NF_TABLES"]) == ("m", "n")
    out, _ = project.run("kernel", "list", **home(project))
    assert out.index(fetched.name) < out.index(second["name"])
    assert "  for     qemu, sandbox\n" in out


def test_a_damaged_kernel_is_in_the_list_with_its_problem(project: Project) -> None:
    files = KernelFiles(image=kernels.bzimage())
    kept = store(project).keep("build", files, key="k", source="s")
    assert listed(project)[0]["options"] is None
    kept.path.write_bytes(b"damaged")
    (found,) = listed(project)
    assert "was changed" in found["problem"]
    assert "runners" not in found


def test_a_kernel_is_built_copied_and_taken(project: Project) -> None:
    try:
        tools.check()
    except BuilderUnusable as problem:
        pytest.skip(problem.message)
    source = kernels.source(project.folder / "src" / "linux")
    tarball = project.folder / "linux.tar"
    subprocess.run(["tar", "-cf", tarball, "-C", source.parent, source.name], check=True)
    words = ("kernel", "build", "--source", str(tarball), "--jobs", "2")
    made = project.json(*words, "--output", "copy", **home(project))
    assert made["is_new"]
    copy = project.folder / "copy"
    assert copy.read_bytes() == kernels.bzimage()
    assert "CONFIG_NSM=y" in copy.with_name("copy.config").read_text()
    _, told = project.run(*words, **home(project))
    assert "it was there already" in told
    assert f'image = "{made["name"]}"' in told
    project.run("init", "hello")
    text = project.toml.read_text().partition("[kernel]")[0]
    registers = set()
    for image in ("build", made["name"], "copy"):
        project.toml.write_text(f'{text}[kernel]\nimage = "{image}"\n')
        built = project.json("build", **home(project))
        assert (built["kernel"], built["warnings"]) == (kernels.VERSION, [])
        registers.add(built["pcrs"]["PCR0"])
    assert len(registers) == 1


def test_a_source_that_fails_ends_with_the_status_of_make(project: Project) -> None:
    try:
        tools.check()
    except BuilderUnusable as problem:
        pytest.skip(problem.message)
    source = kernels.source(project.folder / "src", status=1)
    words = ("kernel", "build", "--source", str(source), "--json")
    out, _ = project.run(*words, status=2, **home(project))
    assert "warning: strange" in json.loads(out)["error"]["message"]
    assert listed(project) == []
    left = sorted(path.name for path in (project.folder / "home" / "kernels").iterdir())
    assert left == [".lock"]
