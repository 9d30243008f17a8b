"""Which kernel an enclave.toml means, with what command line, for whom; and what is kept of it."""

import hashlib
import json
import pathlib

import pytest
from tests.support import kernels

from cloister.build.kernel import KernelFiles, KernelStore, Module, choose_kernel, facts
from cloister.build.kernel.choose import DEFAULT_CMDLINE
from cloister.build.kernel.store import MODULE_ORDER
from cloister.config import Egress, EnclaveToml, Kernel
from cloister.errors import ConfigError, MalformedImage, MissingInput, OutputError

MODULES = tuple(Module(name=name, content=name.encode()) for name in MODULE_ORDER)


@pytest.fixture
def store(tmp_path: pathlib.Path) -> KernelStore:
    return KernelStore(tmp_path / "kernels", aws=tmp_path / "aws")


def toml(folder: pathlib.Path, image: str | None, cmdline: str | None = None) -> EnclaveToml:
    return EnclaveToml(
        name="hello", kernel=Kernel(image=image, cmdline=cmdline), path=folder / "enclave.toml"
    )


def built(system: bytes = b"code") -> KernelFiles:
    return KernelFiles(image=kernels.bzimage(system=system), config=kernels.configuration())


def fetched() -> KernelFiles:
    config = kernels.configuration(
        without=("VIRTIO_MMIO_CMDLINE_DEVICES",), modules=kernels.MODULAR
    )
    return KernelFiles(image=kernels.bzimage(), config=config, modules=MODULES)


def test_without_image_there_is_none(tmp_path: pathlib.Path, store: KernelStore) -> None:
    assert choose_kernel(toml(tmp_path, None), store) is None


def test_a_path_is_relative_to_the_file(tmp_path: pathlib.Path, store: KernelStore) -> None:
    kernels.write(tmp_path / "boot")
    kernel = choose_kernel(toml(tmp_path, "boot/bzImage"), store)
    assert kernel is not None
    assert kernel.image == kernels.bzimage()
    assert kernel.cmdline == DEFAULT_CMDLINE.encode()
    assert kernel.version == kernels.VERSION
    assert kernel.runners == ("nitro", "qemu", "sandbox")
    assert kernel.warnings == ()
    assert kernel.described() == {
        "name": "file",
        "version": kernels.VERSION,
        "size": len(kernel.image),
        "sha384": hashlib.sha384(kernel.image).hexdigest(),
        "cmdline": DEFAULT_CMDLINE,
        "modules": {},
    }


def test_a_name_wins_over_a_path_of_its_spelling(
    tmp_path: pathlib.Path, store: KernelStore
) -> None:
    (tmp_path / "build").write_bytes(kernels.bzimage())
    with pytest.raises(MissingInput, match="no kernel `build`") as missing:
        choose_kernel(toml(tmp_path, "build"), store)
    assert "`cloister kernel build`" in (missing.value.hint or "")
    kernel = choose_kernel(toml(tmp_path, "./build"), store)
    assert kernel is not None
    assert kernel.name == "file"
    assert "nothing of the kernel was checked" in kernel.warnings[0]


def test_a_word_takes_the_newest_and_a_name_that_one(
    tmp_path: pathlib.Path, store: KernelStore
) -> None:
    first = store.keep("build", built(b"1"), key="a", source="linux-source 1")
    second = store.keep("build", built(b"2"), key="b", source="linux-source 2")
    assert [kernel.name for kernel in store.all()] == [second.name, first.name]
    for word, expected in (("build", b"2"), (first.name, b"1"), (second.name, b"2")):
        kernel = choose_kernel(toml(tmp_path, word), store)
        assert kernel is not None
        assert kernel.image == built(expected).image
    with pytest.raises(MissingInput, match="no kernel `fetch`"):
        choose_kernel(toml(tmp_path, "fetch"), store)
    with pytest.raises(MissingInput, match=r"build-6\.12\.117-00000000"):
        choose_kernel(toml(tmp_path, "build-6.12.117-00000000"), store)


def test_a_stored_kernel_that_was_changed_is_refused(
    tmp_path: pathlib.Path, store: KernelStore
) -> None:
    kept = store.keep("build", built(), key="a", source="s")
    assert store.made_of("a") == kept
    assert store.made_of("b") is None
    choose_kernel(toml(tmp_path, "build"), store)
    kept.path.write_bytes(built(b"other").image)
    with pytest.raises(MalformedImage, match="was changed"):
        choose_kernel(toml(tmp_path, "build"), store)
    assert store.made_of("a") is None
    again = store.keep("build", built(), key="a", source="s")
    assert again == kept
    choose_kernel(toml(tmp_path, "build"), store)


def test_modules_come_with_a_fetched_kernel(tmp_path: pathlib.Path, store: KernelStore) -> None:
    kept = store.keep("fetch", fetched(), key="a", source="s")
    kernel = choose_kernel(toml(tmp_path, "fetch"), store)
    assert kernel is not None
    assert kernel.modules == MODULES
    assert kernel.runners == ("qemu", "sandbox")
    assert "nomodules" not in kernel.cmdline.decode().split()
    assert len(kernel.cmdline.split()) == len(DEFAULT_CMDLINE.split()) - 1
    assert any("not for AWS Nitro" in warning for warning in kernel.warnings)
    with pytest.raises(ConfigError, match="`nomodule`"):
        choose_kernel(toml(tmp_path, "fetch", "console=ttyS0 nomodule"), store)
    (kept.path.parent / "modules" / "nsm.ko").write_bytes(b"other")
    with pytest.raises(MalformedImage, match="was changed"):
        choose_kernel(toml(tmp_path, "fetch"), store)


def test_what_aws_installs_is_taken_as_it_is(tmp_path: pathlib.Path, store: KernelStore) -> None:
    kernels.write(tmp_path / "aws", config=kernels.configuration(without=("NSM", "NF_TABLES")))
    (tmp_path / "aws" / "nsm.ko").write_bytes(b"module")
    (tmp_path / "aws" / "cmdline").write_text("reboot=k nomodules  root=/dev/ram0\n")
    (found,) = store.all()
    assert (found.name, found.kind) == ("aws", "aws")
    kernel = choose_kernel(toml(tmp_path, "aws"), store)
    assert kernel is not None
    assert kernel.cmdline == b"reboot=k nomodules root=/dev/ram0"
    assert [module.name for module in kernel.modules] == ["nsm"]
    assert kernel.runners == ("nitro", "qemu", "sandbox")
    assert kernel.warnings == ()
    with_egress = EnclaveToml(name="hello", kernel=Kernel(image="aws"), egress=Egress(enabled=True))
    kernel = choose_kernel(with_egress, store)
    assert kernel is not None
    assert "lacks NF_TABLES" in kernel.warnings[0]
    assert "kernel build" in kernel.warnings[0]


def test_a_kernel_that_cannot_reach_the_host_is_for_the_sandbox(
    tmp_path: pathlib.Path, store: KernelStore
) -> None:
    kernels.write(tmp_path, config=kernels.configuration(modules=("VSOCKETS",)))
    kernel = choose_kernel(toml(tmp_path, "bzImage"), store)
    assert kernel is not None
    assert kernel.runners == ("sandbox",)
    assert "lacks VSOCKETS: the image is for the sandbox alone" in kernel.warnings[0]


def test_a_kernel_that_starts_no_enclave_is_refused(
    tmp_path: pathlib.Path, store: KernelStore
) -> None:
    kernels.write(tmp_path, config=kernels.configuration(without=("DEVTMPFS",)))
    with pytest.raises(ConfigError, match="lacks DEVTMPFS"):
        choose_kernel(toml(tmp_path, "bzImage"), store)
    kernels.write(tmp_path)
    assert choose_kernel(toml(tmp_path, "bzImage"), store) is not None


def test_what_is_no_kernel_is_refused(tmp_path: pathlib.Path, store: KernelStore) -> None:
    (tmp_path / "bzImage").write_bytes(b"\x7fELF" + bytes(4096))
    with pytest.raises(MalformedImage, match="is not a kernel"):
        choose_kernel(toml(tmp_path, "bzImage"), store)
    for missing in ("vmlinuz", "."):
        with pytest.raises(MissingInput, match="no kernel"):
            choose_kernel(toml(tmp_path, missing), store)


def test_a_command_line_of_its_own(tmp_path: pathlib.Path, store: KernelStore) -> None:
    kernels.write(tmp_path)
    kernel = choose_kernel(toml(tmp_path, "bzImage", "console=ttyS0 quiet"), store)
    assert kernel is not None
    assert kernel.cmdline == b"console=ttyS0 quiet"
    image = bytearray(kernels.bzimage())
    image[0x238:0x23C] = (10).to_bytes(4, "little")
    kernels.write(tmp_path, image=bytes(image))
    with pytest.raises(ConfigError, match="19 bytes long, this kernel takes 10"):
        choose_kernel(toml(tmp_path, "bzImage", "console=ttyS0 quiet"), store)


def test_what_is_no_stored_kernel_is_not_listed(store: KernelStore) -> None:
    kept = store.keep("build", built(), key="a", source="s")
    for name in ("build-6.12.117-zzzzzzzz", ".scratch-1", "other"):
        (store.folder / name).mkdir()
    half = store.folder / "build-6.12.117-00000000"
    half.mkdir()
    for text in ("", "[]", "{}", '{"format": 2}', '{"format": 1}'):
        (half / "about.json").write_text(text)
        (half / "bzImage").write_bytes(b"")
        assert store.all() == [kept]
    about = json.loads((kept.path.parent / "about.json").read_text())
    assert about["version"] == kernels.VERSION


def test_work_cut_short_is_cleared_away(store: KernelStore) -> None:
    left = store.folder / ".scratch-killed"
    left.mkdir(parents=True)
    (left / "file").write_bytes(b"half")
    with store.scratch() as folder:
        assert not left.exists()
        with pytest.raises(OutputError, match="another `cloister kernel`"), store.scratch():
            pass
        assert folder.is_dir()
    assert not folder.exists()
    with store.scratch():
        pass


def test_what_was_lost_of_a_fragment_is_named() -> None:
    fragment = facts.read('CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="x"\n# a remark\nCONFIG_D=n')
    assert fragment == {"CONFIG_A": "y", "CONFIG_B": "n", "CONFIG_C": '"x"', "CONFIG_D": "n"}
    assert facts.lost(fragment, {"CONFIG_A": "y", "CONFIG_C": '"x"', "CONFIG_E": "m"}) == []
    assert facts.lost(fragment, {"CONFIG_A": "m", "CONFIG_B": "y"}) == [
        "CONFIG_A=y (it is m)",
        "CONFIG_B=n (it is y)",
        'CONFIG_C="x" (it is n)',
    ]
