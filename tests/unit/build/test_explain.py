"""What is in an image, of any maker, and where two of them differ."""

import datetime as dt
import gzip
import hashlib
import json
import lzma
import pathlib
import stat
import struct

import pytest
from tests.support import eif_images
from tests.support.ramdisks import FOLDER, LINK, Record, archive

from cloister.build.eif import SigningPair, open_eif
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
    count = (
        f"because of 1 file of ramdisk 1 (1 {what if what in ('added', 'removed') else 'changed'})"
    )
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"PCR0 and PCR2 differ {count}",
        "PCR1 is the same",
    ]


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


def test_a_changed_variable_is_named_by_itself(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = []
    for name, value in (("a", "1"), ("b", "2")):
        told = json.dumps({"argv": ["/app"], "env": [["PATH", "/bin"], ["A", value]]}).encode()
        records = (*TOLD[:2], Record(name="cloister/process.json", data=told), *FILES)
        images.append(written(tmp_path / f"{name}.eif", BOOT, archive(*records)))
    assert changes(capsys, *images) == [
        ("ramdisk 1", "cloister/process.json", "`env.A`", APPLICATION)
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


def test_a_name_is_never_cut(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two files of one deep folder would be one in the list."""
    deep = "rootfs/" + "d" * 250 + "/"
    records = [Record(name=deep + name) for name in ("one", "two")]
    path = ours(tmp_path / "a.eif", Record(name=deep[:-1], kind=FOLDER, mode=0o755), *records)
    found = described(capsys, path, "--tree")["ramdisks"]
    assert isinstance(found, list)
    assert {deep + "one", deep + "two"} <= {entry["path"] for entry in found[1]["entries"]}


def pyc(time: int, code: bytes = b"code") -> bytes:
    return b"\xa7\r\r\n" + bytes(4) + struct.pack("<II", time, 10) + code


REASONS: dict[str, tuple[bytes, bytes, str]] = {
    "compiled Python": (pyc(1), pyc(2), "only the time of its source"),
    "other compiled Python": (pyc(1), pyc(2, b"more"), "from byte 8"),
    "gzip": (
        gzip.compress(b"x", mtime=1),
        gzip.compress(b"x", mtime=2),
        "only the time in its gzip header",
    ),
    "other gzip": (gzip.compress(b"x", mtime=1), gzip.compress(b"yy", mtime=1), "from byte"),
    "text": (
        b"a\nlevel = info\n",
        b"a\nlevel = debug\n",
        "line 2: `level = info` → `level = debug`",
    ),
    "a longer text": (b"a\n", b"a\nb\n", "line 2: (no such line) → `b`"),
    "ends of lines": (b"a\nb\n", b"a\r\nb\r\n", "the ends of its lines"),
    "a long line": (b"x" * 500 + b"1", b"x" * 500 + b"2", "xxx1` → `…xxx"),
    "control characters": (b"\x1b[31m", b"\x1b[32m", "line 1: ` [31m` → ` [32m`"),
    "binary": (b"\xff\0abc", b"\xff\0abd", "from byte 4"),
    "a longer binary": (b"\xff\0", b"\xff\0a", "from byte 2"),
}


@pytest.mark.parametrize("what", REASONS)
def test_why_a_content_differs_is_said_where_the_bytes_tell(
    what: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other, reason = REASONS[what]
    first = ours(tmp_path / "a.eif", *FILES, Record(name="rootfs/x", data=one))
    second = ours(tmp_path / "b.eif", *FILES, Record(name="rootfs/x", data=other))
    (change,) = described(capsys, first, "--diff", second, status=1)["changes"]  # type: ignore[attr-defined]
    assert reason in change["note"]
    assert change["first"].startswith(f"sha256 {hashlib.sha256(one).hexdigest()}, {len(one)} bytes")


SITE = "rootfs/venv/lib/python3.11/site-packages"
BEFORE = (
    Record(name=f"{SITE}/idna-3.6.dist-info/METADATA", data=b"Name: idna\nVersion: 3.6\n\ntext"),
    Record(name=f"{SITE}/same-1.dist-info/METADATA", data=b"Name: same\nVersion: 1\n"),
    Record(
        name="rootfs/var/lib/dpkg/status",
        data=b"Package: libc6\nVersion: 1\n\nPackage: bash\nVersion: 5\n\n",
    ),
    Record(name="rootfs/lib/apk/db/installed", data=b"P:musl\nV:1.2\n\n"),
    Record(name="rootfs/a/node_modules/@b/c/package.json", data=b'{"name":"@b/c","version":"1"}'),
    Record(name="rootfs/a/package.json", data=b'{"name":"a","version":"1"}'),
)
AFTER = (
    Record(name=f"{SITE}/idna-3.7.dist-info/METADATA", data=b"Name: idna\nVersion: 3.7\n\ntext"),
    BEFORE[1],
    Record(
        name="rootfs/var/lib/dpkg/status",
        data=b"Package: libc6\nVersion: 2\n\nPackage: bash\nVersion: 5\n\n",
    ),
    Record(name="rootfs/lib/apk/db/installed", data=b"P:musl\nV:1.2\n\nP:zlib\nV:1\n\n"),
    Record(name="rootfs/a/node_modules/@b/c/package.json", data=b"not JSON"),
    Record(name="rootfs/a/package.json", data=b'{"name":"a","version":"2"}'),
)


def test_packages_that_came_went_or_changed_are_named(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ours(tmp_path / "a.eif", *BEFORE)
    second = ours(tmp_path / "b.eif", *AFTER)
    packages = described(capsys, first, "--diff", second, status=1)["packages"]
    assert isinstance(packages, list)
    found = {(one["manager"], one["name"]): (one["first"], one["second"]) for one in packages}
    assert found == {
        ("Python", "idna"): ("3.6", "3.7"),
        ("Debian", "libc6"): ("1", "2"),
        ("Alpine", "zlib"): (None, "1"),
        ("npm", "@b/c"): ("1", None),
    }
    assert run(["describe", str(first), "--diff", str(second)]) == 1
    shown = capsys.readouterr().out
    assert f"  Python idna: 3.6 → 3.7  ({SITE})" in shown
    assert "  Alpine zlib: 1 came  (rootfs)" in shown
    assert described(capsys, first, "--diff", first)["packages"] == []


def test_of_many_files_the_first_are_shown_and_the_answer_is_last(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = [Record(name=f"rootfs/f{number:03}", data=b"1") for number in range(100)]
    folder = [Record(name="rootfs/new", kind=FOLDER, mode=0o755)]
    folder += [Record(name=f"rootfs/new/{number}") for number in range(9)]
    other = [Record(name=record.name, data=b"2") for record in many]
    first = ours(tmp_path / "a.eif", *FILES, *many)
    second = ours(tmp_path / "b.eif", *FILES, *other, *folder)
    assert run(["describe", str(first), "--diff", str(second)]) == 1
    short = capsys.readouterr().out
    assert "rootfs/f039" in short
    assert "rootfs/f040" not in short
    # 100 files and the folder are 101 lines to show.
    assert "… and 61 more: --all shows them" in short
    last = "PCR0 and PCR2 differ because of 110 files of ramdisk 1 (100 changed, 10 added)"
    assert short.splitlines()[-2] == last
    assert run(["describe", str(first), "--diff", str(second), "--all"]) == 1
    whole = capsys.readouterr().out
    assert all(f"* {record.name}\n" in whole for record in many)
    assert all(f"+ {record.name}  (" in whole for record in folder)
    assert whole.splitlines()[-2] == last
    found = described(capsys, first, "--diff", second, status=1)["changes"]
    assert len(found) == 110  # type: ignore[arg-type]
    assert run(["describe", str(first), "--all"]) == 2


def test_a_folder_that_came_is_one_line(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = [Record(name="rootfs/new", kind=FOLDER, mode=0o755)]
    folder += [Record(name=f"rootfs/new/{number}") for number in range(3)]
    first = ours(tmp_path / "a.eif", *FILES)
    second = ours(tmp_path / "b.eif", *FILES, *folder, Record(name="rootfs/newer"))
    assert run(["describe", str(first), "--diff", str(second)]) == 1
    assert capsys.readouterr().out.splitlines()[1:3] == [
        "  + rootfs/new  (folder, drwxr-xr-x 0:0, 3 more in it)",
        "  + rootfs/newer  (file, -rw-r--r-- 0:0, 0 bytes)",
    ]


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        (b"{}", b"{ }", ("metadata", "", "content (order or space, no key)", ())),
        (
            b'{"a":1,"b":2}',
            b'{"b":2,"a":1}',
            ("metadata", "", "content (order or space, no key)", ()),
        ),
        (None, b"{}", ("metadata", "", "added", ())),
        (b"{}", None, ("metadata", "", "removed", ())),
        (b"{}", b"no JSON", ("metadata", "", "`(not JSON)`", ())),
    ],
)
def test_metadata_that_says_the_same_in_other_bytes_is_not_the_same(
    first: bytes | None,
    second: bytes | None,
    what: tuple[str, str, str, tuple[str, ...]],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    application = archive(*TOLD, *FILES)
    one = written(tmp_path / "a.eif", BOOT, application, metadata=first)
    other = written(tmp_path / "b.eif", BOOT, application, metadata=second)
    assert what in changes(capsys, one, other)
    assert described(capsys, one, "--diff", one)["same"] is True


def test_a_signature_that_cannot_be_read_is_a_difference(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = SigningPair.load(*eif_images.pair_files(tmp_path), now=eif_images.NOW)
    unsigned = ours(tmp_path / "a.eif", *FILES)
    signed = ours(tmp_path / "b.eif", *FILES, signing=pair)  # type: ignore[arg-type]
    assert changes(capsys, unsigned, signed) == [("signature", "", "certificate", ("PCR8",))]
    raw = bytearray(signed.read_bytes())
    with open_eif(signed) as image:
        assert image.signature is not None
        raw[image.signature.offset + 12] ^= 0xFF
    broken = tmp_path / "c.eif"
    broken.write_bytes(eif_images.with_checksum(bytes(raw)))
    assert changes(capsys, unsigned, broken) == [("signature", "", "added", ())]


def test_what_is_verified_is_what_can_start_and_others_images_too(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ours have what our launcher takes; linuxkit's have device nodes, and may be packed."""
    for parts in (LINUXKIT, [gzip.compress(part) for part in LINUXKIT]):
        path = written(tmp_path / "linuxkit.eif", *parts, kernel=b"kernel", cmdline=b"reboot=k")
        assert described(capsys, path, "--verify")["verified"] is True
    good = ours(tmp_path / "good.eif", *FILES)
    bad = ours(tmp_path / "bad.eif", *FILES, Record(name="rootfs/device", kind=stat.S_IFCHR))
    assert described(capsys, good, "--verify")["verified"] is True
    error = described(capsys, bad, "--verify", status=65)["error"]
    assert "rootfs/device" in str(error)
    described(capsys, bad)
    # Whatever else is asked for, and of both images.
    for words in ((bad, "--tree"), (bad, "--extract", tmp_path / "out"), (good, "--diff", bad)):
        assert "device" in str(described(capsys, *words, "--verify", status=65)["error"])
    assert not (tmp_path / "out").exists()
    described(capsys, good, "--diff", good, "--verify")


def test_a_wrong_signature_is_shown_and_refused_when_verified(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = SigningPair.load(*eif_images.pair_files(tmp_path), now=eif_images.NOW)
    path = ours(tmp_path / "a.eif", *FILES, signing=pair)  # type: ignore[arg-type]
    described(capsys, path, "--verify")
    raw = path.read_bytes().replace(b"program", b"pROGRAM")
    path.write_bytes(eif_images.with_checksum(raw))
    assert described(capsys, path)["signature"]["valid"] is False  # type: ignore[index]
    assert "signature" in str(described(capsys, path, "--verify", status=65)["error"])


def test_a_certificate_that_ended_is_said(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = dt.datetime.now(dt.UTC)
    for days, message in ((-1, "no enclave starts from it"), (1, "")):
        until = now + dt.timedelta(days=days)
        files = eif_images.pair_files(
            tmp_path / f"{days}", not_before=now - dt.timedelta(days=9), not_after=until
        )
        pair = SigningPair.load(*files, now=now - dt.timedelta(days=2))
        path = ours(tmp_path / "a.eif", *FILES, signing=pair)  # type: ignore[arg-type]
        assert run(["describe", str(path)]) == 0
        found = capsys.readouterr().err
        assert (message in found) if message else not found


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_ramdisk_that_cannot_be_read_is_refused_at_its_place(
    is_packed: bool,  # noqa: FBT001 - a parameter of the test
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The offset is that of the file, or of what was unpacked."""
    broken = archive(*FILES).replace(b"070701", b"070709", 1)
    path = written(tmp_path / "a.eif", BOOT, gzip.compress(broken) if is_packed else broken)
    at = 0 if is_packed else path.read_bytes().index(b"070709")
    error = described(capsys, path, "--tree", status=65)["error"]
    assert f"offset {at}: not an uncompressed `newc` header" in str(error)
    described(capsys, ours(tmp_path / "b.eif", *FILES), "--tree")


def test_a_method_of_compression_that_is_not_read_is_named(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "a.eif", BOOT, lzma.compress(archive(*FILES)))
    error = described(capsys, path, "--tree", status=65)["error"]
    assert "packed with xz" in str(error)
    runs = described(capsys, path)["runs"]
    assert "packed with xz" in str(runs)
