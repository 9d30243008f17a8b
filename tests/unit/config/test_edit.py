"""Writing single settings back: everything else stays, and a failure loses nothing."""

import os
import pathlib
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.config import edit
from cloister.errors import ConfigError, MissingInput, OutputError

TEXT = """\
# the owner's comment

name = "hello"   # behind a value
   debug = false

[unknown.table]  # this program does not know it
key = [ 1,
        2 ]

[attestation]
# about PCR0
PCR0 = "old" # measured on Monday

[scaling]
desired_replicas = 2
"""


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "enclave.toml"
    path.write_text(TEXT)
    return path


def test_only_what_was_set_changes(file: pathlib.Path) -> None:
    with edit(file) as editor:
        editor.set("attestation", "PCR0", to="new")
    assert file.read_text() == TEXT.replace('"old"', '"new"')


def test_a_table_is_made_where_there_is_none(file: pathlib.Path) -> None:
    with edit(file) as editor:
        editor.set("trust", "service_keys", to=["k"])
        editor.set("attestation", "PCR8", to="eight")
        editor.remove("attestation", "PCR1")
        editor.remove("nowhere", "key")
    text = file.read_text()
    assert text.count('service_keys = ["k"]') == 1
    assert (
        '[attestation]\n# about PCR0\nPCR0 = "old" # measured on Monday\nPCR8 = "eight"\n' in text
    )
    for line in TEXT.splitlines():
        assert line in text


def test_a_table_split_by_another_is_written_into(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "enclave.toml"
    file.write_text("[a.b]\nx = 1\n[c]\ny = 2\n[a.d]\nz = 3\n")
    with edit(file) as editor:
        editor.set("a", "d", "z", to=4)
    assert file.read_text() == "[a.b]\nx = 1\n[c]\ny = 2\n[a.d]\nz = 4\n"


def test_a_value_is_no_table(file: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="`name` is not a table"), edit(file) as editor:
        editor.set("name", "inner", to=1)
    assert file.read_text() == TEXT


def test_the_mode_and_a_link_are_kept(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    file.chmod(0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(file.name)
    with edit(link) as editor:
        editor.set("debug", to=True)
    assert link.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert "debug = true" in file.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["enclave.toml", "link.toml"]


def test_an_error_in_the_block_writes_nothing(file: pathlib.Path) -> None:
    before = file.stat()

    def interrupted() -> None:
        with edit(file) as editor:
            editor.set("debug", to=True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert file.read_text() == TEXT
    assert file.stat().st_ino == before.st_ino


def test_a_failed_write_is_an_error_and_loses_nothing(file: pathlib.Path) -> None:
    """The temporary name is taken, as by a write that was killed."""
    taken = file.with_name(f".{file.name}.{os.getpid()}.new")
    taken.mkdir()
    with pytest.raises(OutputError) as caught, edit(file) as editor:
        editor.set("debug", to=True)
    assert caught.value.exit_status == 73
    assert file.read_text() == TEXT
    taken.rmdir()
    with edit(file) as editor:
        editor.set("debug", to=True)
    assert file.read_text() == TEXT.replace("debug = false", "debug = true")


def test_what_cannot_be_edited(tmp_path: pathlib.Path) -> None:
    with pytest.raises(MissingInput), edit(tmp_path / "none.toml"):
        pass
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ")
    with pytest.raises(ConfigError), edit(broken):
        pass
    assert broken.read_text() == "name = "


@given(st.lists(st.sampled_from(TEXT.splitlines(keepends=True)), unique=True, max_size=14))
def test_a_file_that_is_not_changed_is_not_written(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    file = tmp_path_factory.mktemp("any") / "enclave.toml"
    file.write_text("".join(lines))
    inode = file.stat().st_ino
    try:
        with edit(file):
            pass
    except ConfigError:
        return  # Lines in an order that is not TOML.
    assert file.read_text() == "".join(lines)
    assert file.stat().st_ino == inode
