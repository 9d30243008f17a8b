"""What ``cloister.build`` writes and computes, the launcher reads and computes the same way.

The two were written apart, in two languages, from the same page; the launcher believes nothing that
the builder says.
"""

import contextlib
import datetime as dt
import hashlib
import pathlib
import shutil
import tempfile
import zlib
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support import sandbox_image, static_binaries

from cloister.build.eif import SigningPair, measure
from cloister.build.eif.layout import Kind
from cloister.build.eif.write import Payload
from cloister.build.eif.write import write as write_eif
from cloister.build.image import boot_tree
from cloister.build.ramdisk import Ramdisk
from cloister.build.rootfs import Bytes, Directory, File, Symlink, Tree
from cloister.errors import MalformedImage
from cloister.runners import Launch, SandboxRunner

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)


@pytest.fixture(name="folder")
def short_folder() -> Iterator[pathlib.Path]:
    """Sockets need short paths, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="agrees-") as name:
        folder = pathlib.Path(name)
        shutil.copy(static_binaries.launcher(), folder / "launcher")
        yield folder


def pair(folder: pathlib.Path) -> SigningPair:
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "signer")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(1)
    day = dt.timedelta(days=1)
    builder = builder.not_valid_before(NOW - day).not_valid_after(NOW + day)
    certificate = builder.sign(key, hashes.SHA384())
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    form = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(pem, form, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(secret)
    return SigningPair.load(folder / "cert.pem", folder / "key.pem", now=NOW)


def application() -> Tree:
    """A root with hard links, a symbolic link, a set-id program and a name that is not ASCII."""
    tree = Tree()
    tree.put(b"cloister", Directory(mode=0o755))
    config = sandbox_image.CONFIG.read_bytes()
    process = (
        b'{"argv":["/probe","describe"],"env":[],"cwd":"/","user":"","groups":[],"stop_signal":15}'
    )
    for name, text in ((b"config", config), (b"process", process)):
        tree.put(b"cloister/%s.json" % name, File(mode=0o644, content=Bytes(text)))
    tree.put(b"rootfs", Directory(mode=0o755))
    probe = File(mode=0o4755, content=Bytes(static_binaries.fixture("fixture-probe").read_bytes()))
    tree.put(b"rootfs/probe", probe)
    tree.put(b"rootfs/same", probe)
    tree.put("rootfs/größe".encode(), Symlink(mode=0o777, target=b"probe"))
    return tree


def write_image(path: pathlib.Path, signing: SigningPair | None) -> None:
    boot = boot_tree(static_binaries.fixture("fixture-init").read_bytes())
    ramdisks = [Ramdisk.of(tree, epoch=0) for tree in (boot, application())]
    sections = [
        Payload.of(Kind.METADATA, b"{}"),
        *(Payload(Kind.RAMDISK, ramdisk.size, ramdisk.blocks()) for ramdisk in ramdisks),
    ]
    with path.open("xb") as file:
        write_eif(file, sections, memory=1 << 30, cpus=2, signing=signing)


@contextlib.contextmanager
def started(folder: pathlib.Path) -> Iterator[dict[int, bytes]]:
    lines: list[str] = []
    runner = SandboxRunner(
        dev_ca_dir=folder / "ca", launcher=folder / "launcher", console=lines.append
    )
    runner.prepare(folder / "run")
    launch = Launch(image=folder / "image.eif", run_dir=folder / "run", module_id="i-1")
    enclave = runner.start(launch)
    try:
        yield dict(enclave.pcrs)
    finally:
        assert sandbox_image.eventually(lambda: any("process_started" in line for line in lines))
        assert enclave.stop().is_clean, lines


@pytest.mark.parametrize("is_signed", [False, True], ids=["unsigned", "signed"])
def test_both_measure_the_same(folder: pathlib.Path, *, is_signed: bool) -> None:
    signing = pair(folder) if is_signed else None
    write_image(folder / "image.eif", signing)
    expected = measure(folder / "image.eif").registers()
    with started(folder) as pcrs:
        assert {index: pcrs.get(index, bytes(48)) for index in expected} == expected
    if signing is None:
        assert 8 not in pcrs
    else:
        inner = hashlib.sha384(signing.certificate_der).digest()
        assert pcrs[8] == hashlib.sha384(bytes(48) + inner).digest()


def test_a_signature_of_another_image_is_refused(folder: pathlib.Path) -> None:
    """The signature section of one image on the contents of another, with a right checksum."""
    write_image(folder / "good.eif", pair(folder))
    good = (folder / "good.eif").read_bytes()
    changed = good.replace(b'"name": "hello"', b'"name": "hellp"')
    assert changed != good
    header, body = changed[:544], changed[548:]
    checksum = zlib.crc32(body, zlib.crc32(header)).to_bytes(4, "big")
    (folder / "image.eif").write_bytes(header + checksum + body)
    with pytest.raises(MalformedImage, match="another image"), started(folder):
        pass
    shutil.copy(folder / "good.eif", folder / "image.eif")
    with started(folder) as pcrs:
        assert 8 in pcrs
