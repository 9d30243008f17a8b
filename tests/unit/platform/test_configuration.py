"""``platform.toml``, and what ``cloister platform init`` takes for it."""

import datetime as dt
import json
import pathlib

import pytest
from cryptography import x509

from cloister.cli import main
from cloister.errors import ConfigError
from cloister.platform.engines import database_url, has_password
from cloister.platform.server import configuration, tls

NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)

WITH_PASSWORD = [
    "postgresql://u:hunter2@127.0.0.1:1/x",
    "postgresql://u@127.0.0.1:1/x?password=hunter2",
    "postgresql://u@127.0.0.1:1/x?sslmode=require&sslpassword=hunter2",
]
WITHOUT = [
    "postgresql://u@127.0.0.1:1/x",
    "postgresql://u:@127.0.0.1:1/x",
    "postgresql://password@127.0.0.1:1/password?passfile=/pgpass",
]

NAMES = [
    "platform.example.com",
    "Platform-2.internal",
    "xn--grn-ioa.example",
    "localhost",
    "10.0.0.1",
    "2001:db8::1",
    ".".join(["a" * 63] * 3 + ["b" * 61]),
]
NOT_NAMES = [
    "",
    "grün.example",
    "two words",
    "a_b.example",
    "-a.example",
    "a-.example",
    "a..example",
    "a.example.",
    "*.example.com",
    "10.0.0.256",
    "[::1]",
    "fe80::1%eth0",
    "a" * 64,
    ".".join(["a" * 63] * 3 + ["b" * 62]),
    "a\n",
]


def written(folder: pathlib.Path, mode: int, **settings: object) -> pathlib.Path:
    """A ``platform.toml`` with these settings."""
    found = {"version": 1, "listen": "127.0.0.1:8800", "names": ["127.0.0.1"]} | settings
    lines = [f"{name} = {json.dumps(value)}" for name, value in found.items()]
    path = folder / configuration.FILE
    path.write_text("\n".join(lines))
    path.chmod(mode)
    return folder


@pytest.mark.parametrize("url", WITH_PASSWORD)
def test_a_file_with_a_password_is_for_its_owner_alone(tmp_path: pathlib.Path, url: str) -> None:
    with pytest.raises(ConfigError, match="holds a password and has mode 0640") as caught:
        configuration.load(written(tmp_path, 0o640, database_url=url))
    assert "hunter2" not in str(caught.value)
    assert configuration.load(written(tmp_path, 0o600, database_url=url)).database is not None


@pytest.mark.parametrize("url", WITHOUT)
def test_a_file_without_a_password_may_be_read(tmp_path: pathlib.Path, url: str) -> None:
    assert not has_password(database_url(url))
    assert configuration.load(written(tmp_path, 0o644, database_url=url)).database is not None


@pytest.mark.parametrize("url", WITH_PASSWORD)
def test_a_password_is_not_taken_from_the_command_line(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    words = ["platform", "init", "--dir", str(tmp_path / "state"), "--database-url"]
    assert main.run([*words, url]) != 0
    said = capsys.readouterr().err
    assert "a password on the command line" in said
    assert "hunter2" not in said
    # Without one the same command goes on, to a server that is not there.
    assert main.run([*words, WITHOUT[0]]) != 0
    said = capsys.readouterr().err
    assert "a password on the command line" not in said
    assert "cannot be used" in said


@pytest.mark.parametrize("option", ["--certificate", "--key"])
def test_a_certificate_comes_with_its_key(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    """The file that was blamed was not there yet."""
    state = tmp_path / "state"
    words = ["platform", "init", "--dir", str(state)]
    assert main.run([*words, option, "a.pem"]) == 2
    said = capsys.readouterr().err
    assert "--certificate and --key come together" in said
    assert "platform.toml" not in said
    assert not state.exists()
    assert main.run(words) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_an_address_or_a_dns_name(tmp_path: pathlib.Path, name: str) -> None:
    assert configuration.load(written(tmp_path, 0o600, names=[name])).names == (name,)
    tls.make_authority(tmp_path, now=NOW)
    assert tls.ensure_certificate(tmp_path, [name], now=NOW)
    assert not tls.ensure_certificate(tmp_path, [name], now=NOW)
    made = x509.load_pem_x509_certificate((tmp_path / tls.CERTIFICATE_FILE).read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (found,) = names.get_values_for_type(x509.DNSName) or names.get_values_for_type(x509.IPAddress)
    assert str(found) == name


@pytest.mark.parametrize("name", NOT_NAMES)
def test_another_name_is_refused_before_anything_is_made(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with pytest.raises(ConfigError, match="neither an address nor a DNS name"):
        configuration.load(written(tmp_path, 0o600, names=["localhost", name]))
    state = tmp_path / "state"
    assert main.run(["platform", "init", "--dir", str(state), f"--name={name}"]) != 0
    assert "neither an address nor a DNS name" in capsys.readouterr().err
    assert not state.exists()


SAME = [
    ["--listen", "127.0.0.1:8801"],
    ["--name", "platform.example.com", "--name", "10.0.0.1"],
    ["--master-key", "file"],
    ["--class", "production"],
    ["--app", "first"],
]
DIFFERENT = [
    ["--listen", "127.0.0.1:8802"],
    ["--listen", "nowhere"],
    ["--name", "platform.example.com"],
    ["--name", "two words"],
    ["--database-url", "postgresql://u@127.0.0.1:1/x"],
    ["--database-url", "nothing"],
    ["--master-key", "kms://arn:aws:kms:eu-central-1:123456789012:key/1"],
    ["--certificate", "chain.pem", "--key", "key.pem"],
    ["--class", "development"],
    ["--app", "second"],
]


def test_init_of_a_platform_that_is_there_does_what_it_is_told_or_nothing(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every option was ignored, and each call left one more owner's token that never ends."""
    monkeypatch.chdir(tmp_path)
    state = tmp_path / "state"

    def run(*words: str) -> tuple[int, str]:
        status = main.run(["platform", *words, "--dir", str(state)])
        return status, capsys.readouterr().err

    def tokens() -> int:
        assert main.run(["platform", "token", "list", "--dir", str(state), "--json"]) == 0
        return len(json.loads(capsys.readouterr().out)["tokens"])

    options = [word for words in SAME for word in words]
    assert run("init", *options) == (0, "")
    before, number = (state / configuration.FILE).read_bytes(), tokens()
    for words in DIFFERENT:
        status, said = run("init", *words)
        assert status == 78, words
        if words[0] == "--listen" and words[1].startswith("127"):
            assert "with another `--listen`" in said
    assert (state / configuration.FILE).read_bytes() == before
    assert tokens() == number == 1
    for words in ([], *SAME, options):
        status, said = run("init", *words)
        assert status == 0, words
        assert "another owner's token" in said
        number += 1
    assert tokens() == number
    assert (state / configuration.FILE).read_bytes() == before
