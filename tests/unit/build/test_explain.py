"""What is in an image, of any maker, and where two of them differ."""

import gzip
import hashlib
import json
import pathlib
import stat

import pytest
from tests.support import eif_images
from tests.support.ramdisks import FOLDER, LINK, Record, archive

from cloister.build.eif import SigningPair
from cloister.cli.main import run

BOOT = archive(Record(name="init", data=b"init", mode=0o755))
CONFIG = {"name": "hello", "service": {"port": 8008}}
TOLD = (
    Record(name="cloister", kind=FOLDER, mode=0o755),
    Record(name="cloister/config.json", data=json.dumps(CONFIG).encode()),
    Record(name="cloister/process.json", data=b'{"argv":["/app"],"env":[["A","1"]],"cwd":"/"}'),
)
FILES = (
    Record(name="rootfs", kind=FOLDER, mode=0o755),
    Record(name="rootfs/app", data=b"program", mode=0o755),
    Record(name="rootfs/link", kind=LINK, data=b"app", mode=0o777),
)
LINUXKIT = (
    archive(
        Record(name="init", data=b"init", mode=0o755),
        Record(name="dev", kind=FOLDER, mode=0o755),
        Record(name="dev/console", kind=stat.S_IFCHR, mode=0o600),
    ),
    archive(
        Record(name="cmd", data=b"/bin/sh\n-c\nserve\n"),
        Record(name="env", data=b"PATH=/bin\nEMPTY=\n"),
    )
    + archive(Record(name="./rootfs/etc/passwd", data=b"root:x:0:0::/:/bin/sh\n")),
)


def written(
    path: pathlib.Path,
    *parts: bytes,
    metadata: bytes | None = b"{}",
    kernel: bytes | None = None,
    cmdline: bytes | None = None,
    signing: SigningPair | None = None,
) -> pathlib.Path:
    raw, _ = eif_images.image(
        list(parts), kernel=kernel, cmdline=cmdline, metadata=metadata, signing=signing
    )
    path.write_bytes(raw)
    return path


def ours(path: pathlib.Path, *records: Record, **more: bytes) -> pathlib.Path:
    return written(path, BOOT, archive(*TOLD, *records), **more)  # type: ignore[arg-type]


def described(
    capsys: pytest.CaptureFixture[str], *words: object, status: int = 0
) -> dict[str, object]:
    assert run(["describe", *map(str, words), "--json"]) == status
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def changes(
    capsys: pytest.CaptureFixture[str], first: pathlib.Path, second: pathlib.Path
) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Section, file, attribute and registers of each difference."""
    found = described(capsys, first, "--diff", second, status=1)["changes"]
    assert isinstance(found, list)
    return [(one["section"], one["path"], one["what"], tuple(one["pcrs"])) for one in found]


def test_what_an_image_of_ours_runs_is_shown(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ours(tmp_path / "a.eif", *FILES)
    runs = described(capsys, path)["runs"]
    assert isinstance(runs, dict)
    assert (runs["layout"], runs["process"]["argv"], runs["config"]) == (
        "cloister",
        ["/app"],
        CONFIG,
    )
    assert run(["describe", str(path)]) == 0
    assert 'argv ["/app"]' in capsys.readouterr().out


@pytest.mark.parametrize("is_packed", [False, True])
def test_an_image_of_linuxkit_is_shown_with_what_ours_must_not_have(
    is_packed: bool,  # noqa: FBT001 - a parameter of the test
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts = [gzip.compress(part) for part in LINUXKIT] if is_packed else list(LINUXKIT)
    path = written(tmp_path / "a.eif", *parts, kernel=b"kernel", cmdline=b"reboot=k")
    runs = described(capsys, path)["runs"]
    assert runs == {
        "layout": "linuxkit",
        "process": {"argv": ["/bin/sh", "-c", "serve"], "env": [["PATH", "/bin"], ["EMPTY", ""]]},
    }
    found = described(capsys, path, "--tree")["ramdisks"]
    assert isinstance(found, list)
    assert [one["archives"] for one in found] == [1, 2]
    assert [one["compression"] for one in found] == [("gzip" if is_packed else None)] * 2
    kinds = {entry["path"]: entry["kind"] for one in found for entry in one["entries"]}
    assert kinds == {
        "init": "file",
        "dev": "folder",
        "dev/console": "character device",
        "cmd": "file",
        "env": "file",
        "rootfs/etc/passwd": "file",
    }


def test_the_tree_has_every_attribute(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twins = (
        Record(name="rootfs/one", data=b"twin", inode=90, links=2, mode=0o4755, owner=7, mtime=60),
        Record(name="rootfs/two", inode=90, links=2, mode=0o4755, owner=7, mtime=60),
    )
    path = ours(tmp_path / "a.eif", *FILES, *twins, Record(name="rootfs/\x1b[31m"))
    found = described(capsys, path, "--tree")["ramdisks"]
    assert isinstance(found, list)
    entries = {entry["path"]: entry for entry in found[1]["entries"]}
    twin = {
        "kind": "file",
        "mode": "4755",
        "uid": 7,
        "gid": 7,
        "mtime": 60,
        "size": 4,
        "sha256": hashlib.sha256(b"twin").hexdigest(),
    }
    assert entries["rootfs/one"] == {"path": "rootfs/one", **twin, "hard_links": ["rootfs/two"]}
    assert entries["rootfs/two"] == {"path": "rootfs/two", **twin, "hard_links": ["rootfs/one"]}
    assert entries["rootfs/link"]["target"] == "app"
    assert run(["describe", str(path), "--tree"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "lrwxrwxrwx     0:0              0 1970-01-01T00:00:00Z rootfs/link -> app" in shown
    assert "-rwsr-xr-x     7:7              4 1970-01-01T00:01:00Z rootfs/one (2 hard" in shown


def test_an_image_is_the_same_as_itself(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ours(tmp_path / "a.eif", *FILES)
    found = described(capsys, path, "--diff", path)
    assert (found["same"], found["changes"], found["pcrs_differ"]) == (True, [], [])


FIRST = Record(name="rootfs/x", data=b"one", mode=0o644, owner=1, mtime=5)
APPLICATION = ("PCR0", "PCR2")
CHANGED: dict[str, tuple[list[Record], list[tuple[str, str, str, tuple[str, ...]]]]] = {
    "content": (
        [Record(name="rootfs/x", data=b"two", mode=0o644, owner=1, mtime=5)],
        [("ramdisk 1", "rootfs/x", "content", APPLICATION)],
    ),
    "mode": (
        [Record(name="rootfs/x", data=b"one", mode=0o600, owner=1, mtime=5)],
        [("ramdisk 1", "rootfs/x", "mode", APPLICATION)],
    ),
    "owner": (
        [Record(name="rootfs/x", data=b"one", mode=0o644, owner=2, mtime=5)],
        [("ramdisk 1", "rootfs/x", "owner", APPLICATION)],
    ),
    "time": (
        [Record(name="rootfs/x", data=b"one", mode=0o644, owner=1, mtime=6)],
        [("ramdisk 1", "rootfs/x", "time", APPLICATION)],
    ),
    "kind": (
        [Record(name="rootfs/x", kind=LINK, data=b"one", mode=0o777)],
        [("ramdisk 1", "rootfs/x", "kind", APPLICATION)],
    ),
    "removed": ([], [("ramdisk 1", "rootfs/x", "removed", APPLICATION)]),
    "added": (
        [FIRST, Record(name="rootfs/y")],
        [("ramdisk 1", "rootfs/y", "added", APPLICATION)],
    ),
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_changed_file_is_named_with_what_changed_and_its_registers(
    what: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records, expected = CHANGED[what]
    first = ours(tmp_path / "a.eif", *FILES, FIRST)
    second = ours(tmp_path / "b.eif", *FILES, *records)
    assert changes(capsys, first, second) == expected
    found = described(capsys, first, "--diff", second, status=1)
    assert found["pcrs_differ"] == ["PCR0", "PCR2"]
    assert run(["describe", str(first), "--diff", str(second)]) == 1
    assert "PCR0 and PCR2 differ because of 1 file" in capsys.readouterr().out


def test_a_link_that_leads_elsewhere_is_named(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ours(tmp_path / "a.eif", *FILES)
    moved = Record(name="rootfs/link", kind=LINK, data=b"other", mode=0o777)
    second = ours(tmp_path / "b.eif", *FILES[:2], moved)
    assert changes(capsys, first, second) == [("ramdisk 1", "rootfs/link", "link", APPLICATION)]


def test_a_changed_setting_is_named_by_its_key(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ours(tmp_path / "a.eif", *FILES)
    other = json.dumps(CONFIG | {"service": {"port": 9090}}).encode()
    told = (TOLD[0], Record(name="cloister/config.json", data=other), TOLD[2])
    second = written(tmp_path / "b.eif", BOOT, archive(*told, *FILES))
    assert changes(capsys, first, second) == [
        ("ramdisk 1", "cloister/config.json", "`service.port`", APPLICATION)
    ]


def test_each_section_names_the_registers_that_it_is_in(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = SigningPair.load(*eif_images.pair_files(tmp_path), now=eif_images.NOW)
    (tmp_path / "second").mkdir()
    other_pair = SigningPair.load(*eif_images.pair_files(tmp_path / "second"), now=eif_images.NOW)
    application = archive(*TOLD, *FILES)
    first = written(
        tmp_path / "a.eif", BOOT, application, kernel=b"k1", cmdline=b"quiet", signing=pair
    )
    boot = ("PCR0", "PCR1")
    other_boot = archive(Record(name="init", data=b"other", mode=0o755))
    for second, expected in (
        (
            written(
                tmp_path / "b.eif", BOOT, application, kernel=b"k2", cmdline=b"quiet", signing=pair
            ),
            ("kernel", "", "content", boot),
        ),
        (
            written(
                tmp_path / "c.eif", BOOT, application, kernel=b"k1", cmdline=b"loud", signing=pair
            ),
            ("cmdline", "", "content", boot),
        ),
        (
            written(
                tmp_path / "d.eif",
                other_boot,
                application,
                kernel=b"k1",
                cmdline=b"quiet",
                signing=pair,
            ),
            ("ramdisk 0", "init", "content", boot),
        ),
    ):
        found = changes(capsys, first, second)
        assert found[0] == expected
        # The signature is over PCR0, so it differs too, and is in no register.
        assert found[1:] == [("signature", "", "content", ())]
    second = written(
        tmp_path / "b.eif", BOOT, application, kernel=b"k1", cmdline=b"quiet", signing=other_pair
    )
    assert changes(capsys, first, second) == [("signature", "", "certificate", ("PCR8",))]
    second = written(
        tmp_path / "b.eif",
        BOOT,
        application,
        kernel=b"k1",
        cmdline=b"quiet",
        metadata=b'{"ImageName":"x"}',
        signing=pair,
    )
    assert changes(capsys, first, second) == [("metadata", "", "`ImageName`", ())]
    assert run(["describe", str(first), "--diff", str(second)]) == 1
    assert "no PCR differs" in capsys.readouterr().out


def test_bytes_that_belong_to_no_file_are_explained(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ours(tmp_path / "a.eif", *FILES)
    other = archive(*TOLD, *FILES, padding=4096)
    second = written(tmp_path / "b.eif", BOOT, other)
    ((section, path, what, pcrs),) = changes(capsys, first, second)
    assert (section, path, pcrs) == ("ramdisk 1", "", APPLICATION)
    assert "padding" in what


def test_everything_is_written_below_a_new_folder(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twins = (
        Record(name="rootfs/d", kind=FOLDER, mode=0o555),
        Record(name="rootfs/d/one", data=b"twin", inode=90, links=2, mode=0o4755, owner=7),
        Record(name="rootfs/d/two", inode=90, links=2, mode=0o4755, owner=7),
    )
    path = written(
        tmp_path / "a.eif", LINUXKIT[0], archive(*TOLD, *FILES, *twins), kernel=b"k", cmdline=b"c"
    )
    into = tmp_path / "into"
    answer = described(capsys, path, "--extract", into)
    assert answer["left_out"] == ["ramdisk-0/dev/console (character device)"]
    assert (into / "kernel").read_bytes() == b"k"
    assert (into / "metadata.json").read_bytes() == b"{}"
    root = into / "ramdisk-1" / "rootfs"
    assert (root / "app").read_bytes() == b"program"
    assert stat.S_IMODE((root / "app").stat().st_mode) == 0o755
    assert str((root / "link").readlink()) == "app"
    assert (root / "d" / "one").samefile(root / "d" / "two")
    assert stat.S_IMODE((root / "d" / "one").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o555
    owners = json.loads((into / "ramdisk-1.json").read_text())
    assert (owners["rootfs/d/one"]["uid"], owners["rootfs/d/one"]["mode"]) == (7, "4755")
    (root / "d").chmod(0o755)
    assert run(["describe", str(path), "--extract", str(into)]) == 73
    assert "not empty" in capsys.readouterr().err


def test_one_question_at_a_time(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = ours(tmp_path / "a.eif", *FILES)
    assert run(["describe", str(path), "--tree", "--diff", str(path)]) == 2
    assert "one of them" in capsys.readouterr().err


def test_names_of_hard_links_are_compared(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    linked = (
        Record(name="rootfs/one", data=b"x", inode=90, links=2),
        Record(name="rootfs/two", inode=90, links=2),
    )
    apart = (Record(name="rootfs/one", data=b"x"), Record(name="rootfs/two", data=b"x"))
    first = ours(tmp_path / "a.eif", *FILES, *linked)
    second = ours(tmp_path / "b.eif", *FILES, *apart)
    assert {change[2] for change in changes(capsys, first, second)} == {"hard links"}
