"""The folder of images of a host: what is taken, and for what."""

import dataclasses
import json
import os
import pathlib
import time
import uuid
from collections.abc import Mapping

import pytest
from tests.support import sandbox_image

from cloister.build import eif
from cloister.host.images import Images

CONFIG = json.loads(sandbox_image.CONFIG.read_bytes())
ENCLAVE = uuid.UUID(CONFIG["uuid"])


@dataclasses.dataclass(frozen=True)
class Deployed:
    """An active deployment."""

    id: str
    pcrs: Mapping[int, bytes]


def add(folder: pathlib.Path, name: str, *, mark: bytes = b"", **changes: object) -> Deployed:
    """An image with this configuration, written a while ago; its deployment."""
    path = folder / f"{name}.eif"
    application = [
        sandbox_image.Entry(name="cloister", mode=sandbox_image.DIRECTORY | 0o755),
        sandbox_image.Entry(
            name="cloister/config.json", data=json.dumps(CONFIG | changes).encode()
        ),
    ]
    boot = [sandbox_image.Entry(name="mark", data=mark)]
    ramdisks = [sandbox_image.cpio(boot), sandbox_image.cpio(application)]
    sections = [(2, b"console=ttyS0"), (5, b"{}"), *((3, ramdisk) for ramdisk in ramdisks)]
    path.write_bytes(sandbox_image.eif(sections))
    settle(path)
    with eif.open_eif(path) as image:
        return Deployed(name, eif.measure(image).registers())


def settle(path: pathlib.Path) -> None:
    before = time.time() - 10
    os.utime(path, (before, before))


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def images(tmp_path: pathlib.Path, warnings: list[str]) -> Images:
    return Images(tmp_path / "images", warn=warnings.append)


def test_the_newest_deployment_whose_image_is_here_is_found(
    images: Images, tmp_path: pathlib.Path, warnings: list[str]
) -> None:
    old, new = (add(tmp_path / "images", name, mark=name.encode()) for name in ("old", "new"))
    absent = Deployed("absent", {0: b"\1" * 48, 1: b"\2" * 48, 2: b"\3" * 48})
    for wanted, expected in (
        ([new, old], "new"),
        ([old, new], "old"),
        ([absent, old], "old"),
        ([absent], None),
        ([], None),
    ):
        found = images.newest(ENCLAVE, wanted)
        assert (None if found is None else found[0].id) == expected
    found = images.newest(ENCLAVE, [new])
    assert found is not None
    assert found[1].path.name == "new.eif"
    assert found[1].drain_ms == CONFIG["limits"]["drain_timeout"]
    assert not warnings


@pytest.mark.parametrize("index", [0, 1, 2])
def test_each_measured_register_counts(images: Images, tmp_path: pathlib.Path, index: int) -> None:
    deployed = add(tmp_path / "images", "one")
    assert images.newest(ENCLAVE, [deployed]) is not None
    other = dataclasses.replace(deployed, pcrs={**deployed.pcrs, index: b"\xee" * 48})
    assert images.newest(ENCLAVE, [other]) is None


def test_an_image_of_another_enclave_is_not_run_for_this_one(
    images: Images, tmp_path: pathlib.Path
) -> None:
    other = str(uuid.uuid4())
    deployed = add(tmp_path / "images", "other", uuid=other)
    assert images.newest(ENCLAVE, [deployed]) is None
    assert images.newest(uuid.UUID(other), [deployed]) is not None


def test_a_file_is_taken_when_nothing_was_written_to_it_for_a_while(
    images: Images, tmp_path: pathlib.Path, warnings: list[str]
) -> None:
    deployed = add(tmp_path / "images", "one")
    path = tmp_path / "images" / "one.eif"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert images.newest(ENCLAVE, [deployed]) is None
    assert not warnings  # it is being written
    path.write_bytes(whole)
    assert images.newest(ENCLAVE, [deployed]) is None
    settle(path)
    assert images.newest(ENCLAVE, [deployed]) is not None


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"not an EIF", "is not taken"), (None, "is a debug image")],
)
def test_what_cannot_be_run_is_said_once(
    images: Images,
    tmp_path: pathlib.Path,
    warnings: list[str],
    content: bytes | None,
    expected: str,
) -> None:
    deployed = add(tmp_path / "images", "bad", debug=True)
    if content is not None:
        (tmp_path / "images" / "bad.eif").write_bytes(content)
        settle(tmp_path / "images" / "bad.eif")
    good = add(tmp_path / "images", "good")
    for _ in range(3):
        assert images.newest(ENCLAVE, [deployed]) is None
    (warning,) = warnings
    assert expected in warning
    assert images.newest(ENCLAVE, [good]) is not None


def test_a_file_that_was_replaced_is_measured_again(images: Images, tmp_path: pathlib.Path) -> None:
    first = add(tmp_path / "images", "same", mark=b"1")
    assert images.newest(ENCLAVE, [first]) is not None
    second = add(tmp_path / "images", "same", mark=b"2")
    assert images.newest(ENCLAVE, [first]) is None
    assert images.newest(ENCLAVE, [second]) is not None
    (tmp_path / "images" / "same.eif").unlink()
    assert images.newest(ENCLAVE, [second]) is None
