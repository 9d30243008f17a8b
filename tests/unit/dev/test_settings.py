"""What :class:`cloister.dev.DataPlane` makes of its arguments, before anything runs."""

import datetime as dt
import json
import pathlib

import pytest

from cloister import dev
from cloister.dev import ApiKey, DataPlane
from cloister.errors import ConfigError, MissingInput, UsageError

VECTOR = pathlib.Path(__file__).parents[2] / "vectors" / "config" / "enclave.json"


def test_the_defaults_are_a_whole_configuration() -> None:
    """A key that is missing here would refuse every start."""
    assert dev.default_config().keys() == json.loads(VECTOR.read_text()).keys()
    first, second = dev.default_config(), dev.default_config()
    assert first["uuid"] != second["uuid"]


def test_settings_are_laid_over_the_defaults_nested_ones_too() -> None:
    config = {"api_key_auth": False, "limits": {"head": 1024}, "healthcheck": {"path": "/up"}}
    made = DataPlane("127.0.0.1:1", config=config)._config
    assert made["api_key_auth"] is False
    assert made["limits"]["head"] == 1024
    assert made["limits"]["headers"] == dev.default_config()["limits"]["headers"]
    assert made["healthcheck"] == {"path": "/up"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:80", "tcp:127.0.0.1:80"),
        ("[::1]:80", "tcp:[::1]:80"),
        ("tcp:localhost:1", "tcp:localhost:1"),
        ("unix:/run/app.sock", "unix:/run/app.sock"),
    ],
)
def test_addresses_are_read(text: str, expected: str) -> None:
    assert DataPlane(text)._settings["upstream"] == expected


@pytest.mark.parametrize("text", ["", "80", ":80", "host", "host:port", "host:65536", "host:-1"])
def test_what_is_no_address_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        DataPlane(text)


def test_keys_carry_their_scopes_and_their_end() -> None:
    end = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    keys = ["ck_plain", ApiKey(value="ck_other", scopes=("enclave:x",), not_after=end)]
    made = DataPlane("127.0.0.1:1", api_keys=keys)._settings["api_keys"]
    assert made == [
        ("ck_plain", ["app"], None),
        ("ck_other", ["enclave:x"], 1_893_456_000_000),
    ]
    assert "ck_other" not in repr(keys[1])
    local = ApiKey(value="ck_other", not_after=end.replace(tzinfo=None))
    with pytest.raises(UsageError, match="`not_after` has no time zone"):
        DataPlane("127.0.0.1:1", api_keys=[local])


def test_files_that_are_not_there_are_named(tmp_path: pathlib.Path) -> None:
    missing = tmp_path / "missing"
    for arguments in ({"app_keys": [missing]}, {"certificate": (missing, missing)}):
        with pytest.raises(MissingInput, match="missing"):
            DataPlane("127.0.0.1:1", **arguments)
    with pytest.raises(MissingInput):
        DataPlane("127.0.0.1:1", config=missing)


def test_a_toml_that_was_not_initialised_says_what_to_do(tmp_path: pathlib.Path) -> None:
    toml = tmp_path / "enclave.toml"
    toml.write_text('version = 1\nname = "x"\n')
    with pytest.raises(ConfigError) as refused:
        DataPlane("127.0.0.1:1", config=toml)
    assert "cloister init" in str(refused.value.hint)


def test_numbers_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="workers"):
        DataPlane("127.0.0.1:1", workers=0)
    with pytest.raises(UsageError, match="positive"):
        DataPlane("127.0.0.1:1", bundle_life=dt.timedelta(0))
