"""Reading ``host.toml``: what is accepted, and how a refusal says where and what."""

import pathlib
import re
import tomllib
from typing import Any
from uuid import UUID

import pytest

from cloister.config import EnclaveOfHost, HostToml, load_host, loads_host
from cloister.config.host import PlatformToml
from cloister.config.setting import Table, settings
from cloister.errors import ConfigError, MissingInput

EXAMPLE = pathlib.Path(__file__).parents[3] / "host.toml.example"
UNCOMMENTED = re.sub(r"^#(?=[A-Za-z])", "", EXAMPLE.read_text(), flags=re.MULTILINE)
UUID_ONE = "0d5a2a8e-6a51-4f3b-bf0f-4d8c3f0a9e33"
ENCLAVE = f'[[enclave]]\nuuid = "{UUID_ONE}"\nlisten = "127.0.0.1:443"\n'
PATH = pathlib.Path("host.toml")


def test_the_example_as_it_stands_is_the_defaults() -> None:
    assert load_host(EXAMPLE) == HostToml(
        enclaves=(EnclaveOfHost(uuid=UUID(UUID_ONE), listen="0.0.0.0:443"),)
    )


def keys(table: type[Table]) -> set[str]:
    return {setting.key for setting in settings(table) if setting.kind.table is None}


def test_every_setting_is_in_the_example_and_nothing_else_is() -> None:
    found: dict[str, Any] = tomllib.loads(UNCOMMENTED)
    loads_host(UNCOMMENTED, path=PATH)
    assert set(found) == keys(HostToml) | {"platform", "enclave"}
    assert set(found["platform"]) == keys(PlatformToml)
    assert set(found["enclave"][0]) == keys(EnclaveOfHost)


@pytest.mark.parametrize(
    ("text", "place", "message", "hint"),
    [
        ("version = 1\n", "1:1", "names no enclave", "`uuid` and `listen`"),
        (f"runer = 1\n{ENCLAVE}", "1:1", "unknown setting 'runer' at the top", "`runner`"),
        (f'{ENCLAVE}memry = "1GiB"\n', "4:1", "in `[[enclave]]`", "`memory`"),
        (f"workers = 1\n{ENCLAVE}", "1:1", "'workers'", "belongs in `[[enclave]]`"),
        ("[[enclave]]\nlisten = 'a:1'\n", "1:1", "`[[enclave]]` lacks `uuid`", ""),
        (ENCLAVE.replace(":443", ""), "3:1", "HOST:PORT", "0.0.0.0:443"),
        (ENCLAVE.replace(":443", ":70000"), "3:1", "HOST:PORT", "0.0.0.0:443"),
        (ENCLAVE + ENCLAVE.replace(":443", ":1"), "5:1", f"`uuid` {UUID_ONE} stands", ""),
        (
            ENCLAVE + ENCLAVE.replace("0d5a", "0d5b"),
            "6:1",
            "`listen` 127.0.0.1:443 stands there twice",
            "",
        ),
        ("enclave = 3\n", "1:1", "expected tables, `[[enclave]]`", ""),
        (f'objects = "s3://A"\n{ENCLAVE}', "1:1", "s3://BUCKET", ""),
        (f'[platform]\nurl = "http://a"\n{ENCLAVE}', "2:1", "https://HOST", ""),
        (f'class = "debug"\n{ENCLAVE}', "1:1", 'one of "production", "development"', ""),
    ],
)
def test_a_refusal_says_where_and_what(text: str, place: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads_host(text, path=PATH)
    assert caught.value.message.startswith(f"host.toml:{place}: ")
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_several_enclaves_may_take_any_port() -> None:
    second = ENCLAVE.replace("0d5a", "0d5b").replace(":443", ":0")
    found = loads_host(ENCLAVE.replace(":443", ":0") + second, path=PATH)
    assert [one.listen for one in found.enclaves] == ["127.0.0.1:0"] * 2


def test_a_file_that_is_absent_says_what_makes_one(tmp_path: pathlib.Path) -> None:
    with pytest.raises(MissingInput) as caught:
        load_host(tmp_path / "host.toml")
    assert "cloister host init" in (caught.value.hint or "")
