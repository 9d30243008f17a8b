"""``enclave.toml.example`` against the schema, both ways: every setting, and its default."""

import pathlib
import re
import tomllib
from typing import Any

import pytest

from cloister.config import EnclaveToml, load, loads
from cloister.config.setting import Setting, Table, settings

EXAMPLE = pathlib.Path(__file__).parents[2] / "enclave.toml.example"
UNCOMMENTED = re.sub(r"^#(?=[A-Za-z])", "", EXAMPLE.read_text(), flags=re.MULTILINE)


def every_setting(table: type[Table] = EnclaveToml, at: str = "") -> list[tuple[str, Setting]]:
    found = []
    for setting in settings(table):
        path = f"{at}{setting.key}"
        if setting.kind.table is not None:
            found += every_setting(setting.kind.table, f"{path}.")
        else:
            found.append((path, setting))
    return found


def keys(table: dict[str, Any], at: str = "") -> set[str]:
    found = set()
    for key, value in table.items():
        found |= keys(value, f"{at}{key}.") if isinstance(value, dict) else {f"{at}{key}"}
    return found


def written(path: str) -> Any:
    value: Any = tomllib.loads(EXAMPLE.read_text())
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def test_the_example_as_it_stands_is_the_defaults() -> None:
    assert load(EXAMPLE) == EnclaveToml(name="hello")


def test_the_example_with_all_its_lines_is_read() -> None:
    whole = loads(UNCOMMENTED)
    assert whole.uuid is not None
    assert whole.healthcheck is not None
    assert set(whole.attestation.registers()) == {0, 1, 2, 8}


def test_every_setting_is_in_the_example_and_nothing_else_is() -> None:
    assert keys(tomllib.loads(UNCOMMENTED)) == {path for path, _ in every_setting()}


@pytest.mark.parametrize(("path", "setting"), every_setting(), ids=lambda value: str(value)[:40])
def test_a_setting_shows_its_default(path: str, setting: Setting) -> None:
    value = written(path)
    if setting.is_required:
        return
    if value is None:
        # What has no default is shown commented out.
        assert setting.default in (None, ())
    else:
        assert setting.kind.read(value) == setting.default


def test_every_setting_is_explained_and_numbers_have_a_unit() -> None:
    """The line above a setting, or above the block it stands in, is a comment."""
    lines = EXAMPLE.read_text().splitlines()
    for number, line in enumerate(lines):
        if not re.match(r"#?[A-Za-z_0-9]+ = ", line):
            continue
        above = number
        while re.match(r"#?[A-Za-z_0-9]+ = |\[", lines[above]):
            above -= 1
        assert lines[above].startswith("# "), f"line {number + 1}: {line}"
        if re.match(r"#?\w*(timeout|idle|connect|response) = [0-9]", line):
            assert "milliseconds" in lines[above], f"line {number + 1}: {line}"


def test_what_it_says_about_measured_settings_is_so() -> None:
    """A table that is not measured changes nothing of the attested configuration."""
    attested = loads(UNCOMMENTED).attested()
    for text in ("desired_replicas = 2", "cpus = 2", 'memory = "1GiB"', "PCR0 = "):
        assert text in UNCOMMENTED
    changed = UNCOMMENTED.replace("desired_replicas = 2", "desired_replicas = 9")
    changed = changed.replace("cpus = 2", "cpus = 8").replace('"1GiB"', '"4GiB"')
    changed = changed.replace('PCR0 = "00', 'PCR0 = "ff')
    assert loads(changed) != loads(UNCOMMENTED)
    assert loads(changed).attested() == attested
    assert loads(UNCOMMENTED.replace("headers = 128", "headers = 129")).attested() != attested
