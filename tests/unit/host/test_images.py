"""The folder of images of a host: what is taken, and for what."""

import dataclasses
import json
import os
import pathlib
import sys
import time
import uuid
from collections.abc import Mapping

import pytest
from tests.support import sandbox_image

from cloister.build import eif
from cloister.host.images import MAX_IMAGES, Images

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
    with eif.open_eif(path) as image:
        return Deployed(name, eif.measure(image).registers())


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def images(tmp_path: pathlib.Path, warnings: list[str]) -> Images:
    return Images(
        tmp_path / "images", warn=warnings.append, clock=lambda: time.time() + LATER_SECONDS
    )


def found(images: Images, enclave: uuid.UUID, *wanted: Deployed) -> list[str]:
    """Ids of the deployments whose image is here."""
    images.look()
    return [deployment.id for deployment, _ in images.of(enclave, wanted)]


def test_deployments_whose_image_is_here_are_found_in_their_order(
    images: Images, tmp_path: pathlib.Path, warnings: list[str]
) -> None:
    old, new = (add(tmp_path / "images", name, mark=name.encode()) for name in ("old", "new"))
    absent = Deployed("absent", {0: b"\1" * 48, 1: b"\2" * 48, 2: b"\3" * 48})
    assert found(images, ENCLAVE, new, absent, old) == ["new", "old"]
    assert found(images, ENCLAVE, old, new) == ["old", "new"]
    assert found(images, ENCLAVE, absent) == []
    ((_, image),) = images.of(ENCLAVE, [new])
    assert image.path.name == "new.eif"
    assert image.drain_ms == CONFIG["limits"]["drain_timeout"]
    assert not warnings


@pytest.mark.parametrize("index", [0, 1, 2])
def test_each_measured_register_counts(images: Images, tmp_path: pathlib.Path, index: int) -> None:
    deployed = add(tmp_path / "images", "one")
    other = Deployed("other", {**deployed.pcrs, index: b"\xee" * 48})
    assert found(images, ENCLAVE, deployed, other) == ["one"]


def test_the_signer_counts_and_what_the_host_decides_does_not(
    images: Images, tmp_path: pathlib.Path
) -> None:
    deployed = add(tmp_path / "images", "one")
    signed = Deployed("signed", {**deployed.pcrs, 8: rb"\8" * 48})
    elsewhere = Deployed("elsewhere", {**deployed.pcrs, 4: b"\4" * 48})
    assert found(images, ENCLAVE, signed, elsewhere) == ["elsewhere"]


def test_an_image_of_another_enclave_is_not_run_for_this_one(
    images: Images, tmp_path: pathlib.Path
) -> None:
    other = str(uuid.uuid4())
    deployed = add(tmp_path / "images", "other", uuid=other)
    assert found(images, ENCLAVE, deployed) == []
    assert found(images, uuid.UUID(other), deployed) == ["other"]


def test_a_file_is_taken_when_nothing_was_written_to_it_for_a_while(
    tmp_path: pathlib.Path, warnings: list[str]
) -> None:
    later = [0.0]
    images = Images(tmp_path / "images", warn=warnings.append, clock=lambda: time.time() + later[0])
    deployed = add(tmp_path / "images", "one")
    assert found(images, ENCLAVE, deployed) == []
    later[0] = LATER_SECONDS
    assert found(images, ENCLAVE, deployed) == ["one"]
    assert not warnings


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"debug": True}, "is a debug image"),
        ({"uuid": 5}, "names no enclave"),
        ({"uuid": "x"}, "names no enclave"),
        ({"uuid": ["a"]}, "names no enclave"),
        (None, "is not taken"),
    ],
)
def test_what_cannot_be_run_is_said_once_and_is_in_nobodys_way(
    images: Images,
    tmp_path: pathlib.Path,
    warnings: list[str],
    changes: dict[str, object] | None,
    expected: str,
) -> None:
    bad = add(tmp_path / "images", "bad", **(changes or {}))
    if changes is None:
        (tmp_path / "images" / "bad.eif").write_bytes(b"not an EIF")
    good = add(tmp_path / "images", "good", mark=b"good")
    for _ in range(3):
        assert found(images, ENCLAVE, bad, good) == ["good"]
    (warning,) = warnings
    assert expected in warning


def test_what_is_no_file_is_passed_over(images: Images, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "images"
    (folder / "folder.eif").mkdir()
    os.mkfifo(folder / "fifo.eif")
    (folder / "loop.eif").symlink_to("loop.eif")
    (folder / "gone.eif").symlink_to("nowhere")
    (folder / "zeros.eif").symlink_to("/dev/zero")
    good = add(folder, "good")
    assert found(images, ENCLAVE, good) == ["good"]


def test_a_file_that_was_replaced_is_measured_again(images: Images, tmp_path: pathlib.Path) -> None:
    first = add(tmp_path / "images", "same", mark=b"1")
    assert found(images, ENCLAVE, first) == ["same"]
    second = add(tmp_path / "images", "same", mark=b"2")
    assert found(images, ENCLAVE, first) == []
    assert found(images, ENCLAVE, second) == ["same"]
    (tmp_path / "images" / "same.eif").unlink()
    assert found(images, ENCLAVE, second) == []


def test_a_file_that_could_not_be_read_is_tried_again(
    images: Images, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose measuring ended with a signal, for it was cut short under its reader."""
    deployed = add(tmp_path / "images", "one")
    python = sys.executable
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert found(images, ENCLAVE, deployed) == []
    monkeypatch.setattr(sys, "executable", python)
    assert found(images, ENCLAVE, deployed) == [], "it is not tried at every look"
    until = time.monotonic() + 20
    while found(images, ENCLAVE, deployed) != ["one"]:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_before_the_first_look_nothing_is_known(images: Images) -> None:
    assert images.of(ENCLAVE, []) is None
    images.look()
    assert images.of(ENCLAVE, []) == []


def test_what_lies_where_the_host_was_started_is_not_imported(
    images: Images, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("import sys; sys.exit(3)")
    monkeypatch.chdir(tmp_path)
    deployed = add(tmp_path / "images", "one")
    assert found(images, ENCLAVE, deployed) == ["one"]


def test_more_images_than_are_looked_at_are_said_and_the_newest_are_taken(
    images: Images, tmp_path: pathlib.Path, warnings: list[str]
) -> None:
    for number in range(MAX_IMAGES):
        os.link(__file__, tmp_path / "images" / f"{number}.eif")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Images, "_measure", lambda *_: (None, True))
        images.look()
    assert not warnings
    newest = add(tmp_path / "images", "zz")
    assert found(images, ENCLAVE, newest) == ["zz"]
    assert f"the newest {MAX_IMAGES} are used" in warnings[0]


LATER_SECONDS = 60.0
