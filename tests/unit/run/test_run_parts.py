"""What `cloister run` checks and keeps before anything is started."""

import json
import os
import pathlib
import signal
import stat
import tempfile

import pytest
from tests.support import sandbox_image
from tests.support.platform_world import PCRS, World, make_world

from cloister.build import eif
from cloister.build.built_config import attested_of
from cloister.cli import _local_key
from cloister.cli._run_plan import check_image
from cloister.cli.params import listen_address
from cloister.cli.run import Stop
from cloister.errors import ConfigError, MalformedImage, OutputError, UsageError
from cloister.host import run_dir

REGISTERS = {index: PCRS[index] for index in (0, 1, 2, 8)}
IMAGE = pathlib.Path("enclave.eif")


@pytest.fixture
def world(tmp_path: pathlib.Path) -> World:
    return make_world(tmp_path)


def test_an_image_with_the_registers_of_the_toml_passes() -> None:
    check_image(REGISTERS, REGISTERS, image=IMAGE)


@pytest.mark.parametrize("index", [0, 1, 2, 8])
def test_an_image_with_another_register_is_named(index: int) -> None:
    with pytest.raises(ConfigError, match=f"PCR{index} is .* in enclave.toml and eeee"):
        check_image(REGISTERS | {index: b"\xee" * 48}, REGISTERS, image=IMAGE)
    without = {other: value for other, value in REGISTERS.items() if other != index}
    with pytest.raises(ConfigError, match=f"PCR{index} is .* absent in the image"):
        check_image(without, REGISTERS, image=IMAGE)


def test_a_toml_that_was_never_built_says_so() -> None:
    with pytest.raises(ConfigError, match="has no PCRs"):
        check_image(REGISTERS, {}, image=IMAGE)


def test_the_local_key_is_kept_private_and_used_again(world: World) -> None:
    key = _local_key.local_key(world.keys, world.store.directory)
    kept = world.store.directory / "api-key"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert kept.read_text() == key + "\n"
    assert _local_key.local_key(world.keys, world.store.directory) == key
    assert len(world.keys.all()) == 1


@pytest.mark.parametrize("spoilt", ["", "ck_0_x", "\xff\xfe", "ck_" + "a" * 60])
def test_a_key_file_that_holds_no_key_of_the_app_is_replaced(world: World, spoilt: str) -> None:
    kept = world.store.directory / "api-key"
    kept.write_bytes(spoilt.encode("latin-1"))
    key = _local_key.local_key(world.keys, world.store.directory)
    assert world.keys.works(key)


def test_a_revoked_local_key_is_replaced(world: World) -> None:
    first = _local_key.local_key(world.keys, world.store.directory)
    world.keys.revoke(first)
    assert _local_key.local_key(world.keys, world.store.directory) != first


def test_a_run_directory_is_private_and_short(tmp_path: pathlib.Path) -> None:
    made = run_dir.make(tmp_path)
    assert made.parent == tmp_path
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    run_dir.remove(made)
    assert not made.exists()
    run_dir.remove(made)


def test_a_folder_that_cannot_be_used_gives_way_to_the_next(tmp_path: pathlib.Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    made = run_dir.make(deep, tmp_path / "gone", pathlib.Path(tempfile.gettempdir()))
    assert tmp_path not in made.parents
    assert len(os.fsencode(made / "v" / "enclave-7777.sock")) <= 107
    run_dir.remove(made)


def test_nowhere_to_make_a_run_directory_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OutputError, match="no folder for the sockets"):
        run_dir.make(tmp_path / "gone")


@pytest.mark.parametrize("text", ["8443", ":8443", "127.0.0.1", "127.0.0.1:x", "h:65536", "h:-1"])
def test_a_listen_address_that_is_none_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        listen_address(text)
    assert listen_address("[::1]:0") == "[::1]:0"
    assert listen_address("tcp:127.0.0.1:8443") == "127.0.0.1:8443"


def test_the_first_signal_drains_the_second_ends_and_more_do_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Stop() as stop:
        stop.can_drain = True
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_during_the_start_ends_at_once() -> None:
    with Stop() as stop:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert not stop.is_asked


def image_with(folder: pathlib.Path, config: bytes) -> pathlib.Path:
    """An image whose second ramdisk has this configuration."""
    path = folder / "enclave.eif"
    application = [
        sandbox_image.Entry(name="cloister", mode=sandbox_image.DIRECTORY | 0o755),
        sandbox_image.Entry(name="cloister/config.json", data=config),
    ]
    ramdisks = [sandbox_image.cpio([]), sandbox_image.cpio(application)]
    sections = [(2, b"console=ttyS0"), (5, b"{}"), *((3, ramdisk) for ramdisk in ramdisks)]
    path.write_bytes(sandbox_image.eif(sections))
    return path


def test_the_configuration_is_read_out_of_the_image(tmp_path: pathlib.Path) -> None:
    path = image_with(tmp_path, sandbox_image.CONFIG.read_bytes())
    with eif.open_eif(path) as image:
        found = attested_of(image, image_path=path)
    assert found == json.loads(sandbox_image.CONFIG.read_bytes())


@pytest.mark.parametrize(
    "change",
    [{"debug": "no"}, {"limits": {}}, {"tls": []}, {"trust": {"service_keys": ["?"]}}, None],
)
def test_a_configuration_that_no_enclave_starts_with_is_refused(
    tmp_path: pathlib.Path, change: dict[str, object] | None
) -> None:
    whole = json.loads(sandbox_image.CONFIG.read_bytes())
    text = b"[]" if change is None else json.dumps(whole | change).encode()
    path = image_with(tmp_path, text)
    with (
        eif.open_eif(path) as image,
        pytest.raises(MalformedImage, match="no configuration in it"),
    ):
        attested_of(image, image_path=path)
