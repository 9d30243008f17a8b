"""Packages of Debian: which one, what is taken from it, and what of a module is believed."""

import lzma
import pathlib

import pytest
from tests.support import kernels

from cloister.build.kernel import apt, modinfo
from cloister.build.kernel.fetch import newest, taken, unpacked
from cloister.build.kernel.store import MODULE_ORDER
from cloister.errors import BuildFailed, MalformedImage

DIGEST = "ab" * 32
MODULES = {
    "virtio_mmio.ko.xz": lzma.compress(kernels.module("")),
    "vsock.ko.xz": lzma.compress(kernels.module("")),
    "vmw_vsock_virtio_transport_common.ko.xz": lzma.compress(kernels.module("vsock")),
    "vmw_vsock_virtio_transport.ko.xz": lzma.compress(
        kernels.module("vmw_vsock_virtio_transport_common,vsock,virtio-ring")
    ),
    "nsm.ko": kernels.module("rng-core"),
    "virtio_net.ko.xz": b"not looked at",
}
BUILTIN = ("char/hw_random/rng-core", "virtio/virtio_ring")


def test_apt_says_where_a_package_is() -> None:
    file = "linux-source-6.12_6.12.117-1~deb12u1_all.deb"
    answer = f"W: a warning\n'scheme://host/{file}' {file} 152 SHA256:{DIGEST}\n"
    assert apt.parse("linux-source-6.12", answer) == apt.Package(
        name="linux-source-6.12",
        version="6.12.117-1~deb12u1",
        file=file,
        size=152,
        sha256=DIGEST,
    )
    epoch = answer.replace("_6.12", "_1%3a6.12")
    found = apt.parse("linux-source-6.12", epoch)
    assert found is not None
    assert found.version == "1:6.12.117-1~deb12u1"
    for wrong in ("", "'u' ../x_1_all.deb 1 SHA256:" + DIGEST, f"'u' {file} 1 MD5Sum:00"):
        assert apt.parse("linux-source-6.12", wrong) is None


def test_the_newest_cloud_kernel_is_taken() -> None:
    names = [
        "linux-image-6.12.9+deb12-cloud-amd64",
        "linux-image-6.12.117+deb12-cloud-amd64",
        "linux-image-6.12.118+deb12-cloud-amd64-dbg",
        "linux-image-6.12.119+deb12-cloud-amd64-unsigned",
        "linux-image-6.12.120+deb12-amd64",
        "linux-image-6.1.0-50-cloud-amd64",
        "Depends:",
    ]
    assert newest(names) == "linux-image-6.12.117+deb12-cloud-amd64"
    assert newest(names[2:]) is None


def test_kernel_and_modules_of_a_package(tmp_path: pathlib.Path) -> None:
    kernels.package(tmp_path, MODULES, builtin=BUILTIN)
    files = taken(tmp_path)
    assert files.image == kernels.bzimage()
    assert [module.name for module in files.modules] == list(MODULE_ORDER)
    assert files.modules[1].content == kernels.module("")
    assert files.config is not None


def test_a_module_that_is_built_in_is_not_looked_for(tmp_path: pathlib.Path) -> None:
    some = {name: content for name, content in MODULES.items() if "mmio" not in name}
    kernels.package(tmp_path, some, builtin=(*BUILTIN, "virtio/virtio-mmio"))
    assert [module.name for module in taken(tmp_path).modules] == list(MODULE_ORDER[1:])


def test_what_a_package_lacks_is_named(tmp_path: pathlib.Path) -> None:
    some = {name: content for name, content in MODULES.items() if name != "nsm.ko"}
    kernels.package(tmp_path / "a", some, builtin=BUILTIN)
    with pytest.raises(BuildFailed, match="no module `nsm`"):
        taken(tmp_path / "a")
    kernels.package(tmp_path / "b", MODULES, builtin=BUILTIN[1:])
    with pytest.raises(MalformedImage, match="`nsm` needs rng_core"):
        taken(tmp_path / "b")
    kernels.package(tmp_path / "c", MODULES, builtin=BUILTIN)
    taken(tmp_path / "c")
    (tmp_path / "c" / "boot" / "vmlinuz-6.12.118").write_bytes(b"")
    with pytest.raises(BuildFailed, match="2 files"):
        taken(tmp_path / "c")


def test_a_module_is_unpacked_within_bounds(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.ko.xz"
    path.write_bytes(lzma.compress(b"module"))
    assert unpacked(path) == b"module"
    path.write_bytes(lzma.compress(bytes((32 << 20) + 1)))
    with pytest.raises(MalformedImage, match="longer than"):
        unpacked(path)
    path.write_bytes(b"damaged")
    with pytest.raises(MalformedImage, match=r"x\.ko\.xz"):
        unpacked(path)
    path.write_bytes(lzma.compress(b"module" * 1000)[:40])
    with pytest.raises(MalformedImage, match="cut short"):
        unpacked(path)
    other = tmp_path / "x.ko.zst"
    other.write_bytes(b"")
    with pytest.raises(MalformedImage, match="expected"):
        unpacked(other)


def test_a_module_says_what_it_needs() -> None:
    assert modinfo.needs(kernels.module("vsock,virtio-ring"), "x") == ["vsock", "virtio_ring"]
    assert modinfo.needs(kernels.module(""), "x") == []
    assert modinfo.needs(kernels.module(text=b"name=x"), "x") == []


def test_a_hostile_module_is_refused_or_read() -> None:
    good = kernels.module("vsock")
    for length in range(len(good)):
        try:
            assert set(modinfo.needs(good[:length], "x")) <= {"vsock"}
        except MalformedImage:
            continue
    for at in range(64):
        for value in (0, 1, 0x7F, 0xFF):
            changed = good[:at] + bytes([value]) + good[at + 1 :]
            try:
                modinfo.needs(changed, "x")
            except MalformedImage:
                continue
    with pytest.raises(MalformedImage, match="not an ELF"):
        modinfo.needs(b"", "x")
    with pytest.raises(MalformedImage, match="no section"):
        modinfo.needs(good.replace(b".modinfo", b".modinfx"), "x")
