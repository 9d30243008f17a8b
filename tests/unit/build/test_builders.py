"""Choosing a builder, its copy of the context, and what is made of what it prints.

Builders themselves run in tests/integration/test_builders_containers.py.
"""

import dataclasses
import os
import pathlib
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.build.builders import (
    Buildah,
    BuildRequest,
    Native,
    Podman,
    Unusable,
    child,
    choose,
)
from cloister.build.builders.buildah import _Bases
from cloister.build.builders.docker import Docker
from cloister.build.builders.epoch import epoch_argument
from cloister.build.builders.output import MAX_CHARACTERS, MAX_PENDING_BYTES, Lines, clean
from cloister.build.builders.stage import staged
from cloister.build.builders.stored import read_identity, with_digest
from cloister.errors import (
    BuilderUnusable,
    BuildFailed,
    InputError,
    MissingInput,
    UsageError,
)

PYTHON = sys.executable


@dataclasses.dataclass(frozen=True)
class Fake:
    """A builder that works or does not."""

    name: str
    problem: Unusable | None = None

    def unusable(self) -> Unusable | None:
        """What it was made with."""
        return self.problem


ABSENT = Unusable("there is no program", "install it")
ORDER = (Fake("docker", ABSENT), Fake("buildah"), Fake("podman"), Native())


def test_auto_takes_the_first_that_works_and_says_why_not_the_others() -> None:
    told: list[str] = []
    assert choose("auto", "Dockerfile:2: RUN", told.append, ORDER).name == "buildah"
    assert told == ["builder: buildah (docker: there is no program)"]


def test_auto_needs_no_program_for_a_dockerfile_without_containers() -> None:
    told: list[str] = []
    assert choose("auto", None, told.append, ORDER).name == "native"
    assert "native" in told[0]


def test_auto_without_a_builder_names_each_and_the_line_that_needs_one() -> None:
    none = (Fake("docker", ABSENT), Fake("podman", ABSENT), Native())
    with pytest.raises(BuilderUnusable) as caught:
        choose("auto", "Dockerfile:2: RUN", print, none)
    for word in ("docker: there is no program", "podman: there is no", "Dockerfile:2: RUN"):
        assert word in caught.value.message
    assert caught.value.hint == "install it"


def test_a_builder_that_was_named_is_taken_or_refused() -> None:
    """It is never replaced by another one, and a Dockerfile does not change the choice."""
    assert choose("podman", None, print, ORDER).name == "podman"
    assert choose("native", "Dockerfile:2: RUN", print, ORDER).name == "native"
    with pytest.raises(BuilderUnusable, match="docker does not work here: there is no program"):
        choose("docker", None, print, ORDER)
    with pytest.raises(UsageError, match="no builder 'kaniko'"):
        choose("kaniko", None, print, ORDER)


def test_a_program_that_is_not_there_is_unusable_and_says_what_to_install() -> None:
    problem = Docker(program="no-such-docker").unusable()
    assert problem is not None
    assert "no-such-docker" in problem.reason
    assert "apt install" in problem.fix


@pytest.mark.parametrize("builder", [Docker, Buildah, Podman])
def test_a_builder_that_does_not_answer_is_unusable_and_a_slow_one_is_not(
    builder: type[Docker | Buildah], tmp_path: pathlib.Path
) -> None:
    answer = '{"Client": {"Version": "20.10"}, "Server": {"Os": "linux"}}'
    slow = script(tmp_path / "slow", f"import time; time.sleep(2.5); print('{answer}')")
    assert builder(program=str(slow)).unusable() is None
    started = time.monotonic()
    problem = builder(program=str(slow), patience=0.2).unusable()
    assert time.monotonic() - started < 2
    assert problem is not None
    assert "did not answer" in problem.reason


def test_a_daemon_that_answers_is_usable(tmp_path: pathlib.Path) -> None:
    told = '{"Client": {"Version": "%s"}, "Server": {"Os": "%s"}}'
    for version, system, reason in [
        ("20.10.24", "linux", None),
        ("28.0", "windows", "its daemon runs containers of windows"),
        ("", "linux", "is not Docker's own client"),
    ]:
        program = script(tmp_path / "docker", f"print('{told % (version, system)}')")
        problem = Docker(program=str(program)).unusable()
        assert (problem is None) is (reason is None)
        assert problem is None or (reason or "") in problem.reason


def script(path: pathlib.Path, text: str) -> pathlib.Path:
    path.write_text(f"#!{PYTHON}\n{text}\n")
    path.chmod(0o755)
    return path


def test_lines_are_shown_without_control_characters() -> None:
    assert clean(b"\x1b[31mred\x1b[0m \x1b]0;title\x07plain\t.") == "red plain ."
    assert clean(b"bell\x07 null\0 \xff \xe2\x80\xae") == "bell� null� � �"
    assert len(clean(b"x" * 5000)) == MAX_CHARACTERS


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_lines_do_not_depend_on_how_they_arrive(parts: list[bytes]) -> None:
    together, apart = Lines(), Lines()
    expected = [*together.feed(b"".join(parts)), *together.rest()]
    found = [line for part in parts for line in apart.feed(part)] + list(apart.rest())
    assert found == expected
    assert all(line.isprintable() and len(line) <= MAX_CHARACTERS for line in found)


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    lines = Lines()
    cut = [line for _ in range(10) for line in lines.feed(b"x" * (MAX_PENDING_BYTES // 2))]
    assert 1 <= len(cut) <= 10
    assert len(lines._pending) <= MAX_PENDING_BYTES


def test_a_program_gives_its_lines_and_its_status() -> None:
    told: list[str] = []
    ended = child.run([PYTHON, "-c", "for i in range(30): print(i)\nexit(7)"], told.append)
    assert told == [str(number) for number in range(30)]
    assert (ended.status, ended.last) == (7, tuple(told[-child.LAST_LINES :]))
    problem = child.failure("docker", ended)
    assert problem.exit_status == 7
    assert problem.message.startswith("docker ended with status 7:\n  10\n")


def test_a_program_that_a_signal_ends_has_the_status_a_shell_gives() -> None:
    ended = child.run([PYTHON, "-c", "import os; os.kill(os.getpid(), 15)"], print)
    assert ended.status == 128 + 15


def test_a_program_that_cannot_be_started_is_a_failure() -> None:
    with pytest.raises(BuildFailed) as caught:
        child.run(["/no/such/program"], print)
    assert caught.value.exit_status == 127


def test_what_a_program_leaves_behind_does_not_hold_up_its_end() -> None:
    """It keeps the pipe open, as a daemon would."""
    leave = "import subprocess; p = subprocess.Popen(['sleep', '61']); print(p.pid)"
    told: list[str] = []
    started = time.monotonic()
    ended = child.run([PYTHON, "-c", leave], told.append)
    assert ended.status == 0
    assert time.monotonic() - started < 10
    assert is_gone(int(told[0]))


def test_an_interruption_ends_the_inner_programs_first() -> None:
    """The outer one sees the inner one end, tidies up and ends by itself."""
    outer = (
        "import subprocess, signal\n"
        "p = subprocess.Popen(['sleep', '62'])\n"
        "print(p.pid, flush=True)\n"
        "p.wait()\n"
        "print('tidied up', flush=True)\n"
    )
    told: list[str] = []

    def interrupted(line: str) -> None:
        told.append(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        child.run([PYTHON, "-c", outer], interrupted)
    assert is_gone(int(told[0]))


def is_gone(pid: int) -> bool:
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_a_question_that_fails_says_the_last_line() -> None:
    assert child.ask([PYTHON, "-c", "print('answer')"]) == "answer\n"
    with pytest.raises(child.NoAnswer, match=r"^why\?bell$"):
        child.ask([PYTHON, "-c", "exit('first\\nwhy?\x1b[1mbell')"])


def request(context: pathlib.Path, **more: object) -> BuildRequest:
    settings: dict[str, object] = {"dockerfile": context / "Dockerfile", "context": context}
    return BuildRequest(**(settings | more))  # type: ignore[arg-type]


@pytest.fixture
def context(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\n")
    return folder


def names(folder: pathlib.Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_the_copy_has_what_the_context_has_and_goes_with_the_block(
    context: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (context / "a").mkdir(mode=0o750)
    (context / "a" / "file").write_bytes(b"data")
    (context / "a" / "file").chmod(0o4711)
    (context / "link").symlink_to("../outside")
    os.utime(context / "a" / "file", (1, 2))
    with staged(request(context, scratch=tmp_path), print) as stage:
        assert names(stage.context) == {"Dockerfile", "a", "a/file", "link"}
        copied = stage.context / "a" / "file"
        assert copied.read_bytes() == b"data"
        # What the umask and the clock of a machine decide is not part of a build.
        assert (copied.stat().st_mode & 0o7777, copied.stat().st_mtime) == (0o755, 0)
        assert (stage.context / "a").stat().st_mode & 0o777 == 0o755
        assert (stage.context / "link").lstat().st_mtime == 0
        assert str((stage.context / "link").readlink()) == "../outside"
        assert stage.inner_dockerfile == stage.context / "Dockerfile"
        assert tmp_path in stage.folder.parents
        copied.write_bytes(b"changed")
    assert not stage.folder.exists()
    assert (context / "a" / "file").read_bytes() == b"data"


def test_patterns_that_take_back_are_followed(context: pathlib.Path) -> None:
    (context / ".dockerignore").write_text("deps\n!deps/keep\nempty\n")
    for name in ("deps/keep", "deps/drop", "empty/drop"):
        (context / name).parent.mkdir(exist_ok=True)
        (context / name).write_text("")
    with staged(request(context), print) as stage:
        assert names(stage.context) - {"Dockerfile", ".dockerignore"} == {"deps", "deps/keep"}


def test_private_files_that_are_ignored_anyway_are_not_talked_about(
    context: pathlib.Path,
) -> None:
    (context / "key.pem").write_text("")
    told: list[str] = []
    wanted = request(context, private=frozenset({context / "key.pem"}))
    with staged(wanted, told.append) as stage:
        assert names(stage.context) == {"Dockerfile"}
    assert told == ["private, kept out of the build: key.pem"]
    (context / ".dockerignore").write_text("*.pem\n")
    told.clear()
    with staged(wanted, told.append) as stage:
        assert names(stage.context) == {"Dockerfile", ".dockerignore"}
    assert told == []


def test_a_private_path_is_known_through_links(
    context: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "alias").symlink_to(context)
    (context / "key.pem").write_text("")
    wanted = request(tmp_path / "alias", private=frozenset({tmp_path / "alias" / "key.pem"}))
    with staged(wanted, print) as stage:
        assert names(stage.context) == {"Dockerfile"}


def test_a_context_inside_a_private_folder_is_refused(context: pathlib.Path) -> None:
    wanted = request(context, private=frozenset({context.parent}))
    with pytest.raises(UsageError, match="private"), staged(wanted, print):
        pass


def test_what_is_not_there_is_named(context: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(MissingInput, match="nowhere"), staged(request(tmp_path / "nowhere"), print):
        pass
    (context / "Dockerfile").unlink()
    with pytest.raises(MissingInput, match="Dockerfile"), staged(request(context), print):
        pass


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_named(context: pathlib.Path) -> None:
    (context / "closed").write_text("")
    (context / "closed").chmod(0)
    with pytest.raises(InputError, match="closed"), staged(request(context), print):
        pass


def test_a_stage_is_no_base_however_buildah_names_it() -> None:
    """1.28 prints the identity of a stage that another one starts from."""
    stage, base = "5d" * 32, "c0" * 32
    bases = _Bases(f"FROM debian:12 AS python\nFROM python AS build\nFROM {base}\n")
    for line in (
        "[1/4] STEP 1/2: FROM debian:12 AS python",
        "[1/4] STEP 2/2: RUN echo FROM nowhere",
        f"[2/4] STEP 1/2: FROM {stage} AS build",
        "[3/4] STEP 1/1: FROM build",
        f"[4/4] STEP 1/1: FROM {base}",
        "STEP 1: FROM scratch",
    ):
        bases.read(line)
    assert bases.found == ["debian:12", base]


def test_a_base_has_the_digest_of_its_registry() -> None:
    digest = "sha256:" + "a" * 64
    assert (
        with_digest("docker.io/library/debian:12", [f"debian@{digest}"], "x")
        == f"debian:12@{digest}"
    )
    assert with_digest("own:1", [], "sha256:b") == "own:1 (of this machine, sha256:b)"


def test_a_builder_that_names_no_image_has_failed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "identity").write_text(f"sha256:{'0' * 64}\n")
    assert read_identity(tmp_path / "identity", "docker") == f"sha256:{'0' * 64}"
    (tmp_path / "identity").write_text("")
    with pytest.raises(BuildFailed, match="names no image"):
        read_identity(tmp_path / "identity", "docker")


@pytest.mark.parametrize(
    ("text", "is_asked_for"),
    [
        ("ARG SOURCE_DATE_EPOCH\n", True),
        ("FROM x\n  arg A=1 SOURCE_DATE_EPOCH=2\n", True),
        ("ARG\tSOURCE_DATE_EPOCH", True),
        ("ENV SOURCE_DATE_EPOCH=1\n", False),
        ("ARG SOURCE_DATE_EPOCHS\n", False),
        ("ARG A\nSOURCE_DATE_EPOCH\n", False),
        # Empty lines by the hundred thousand take no time.
        ("\n" * 300_000, False),
    ],
)
def test_the_time_is_given_to_a_dockerfile_that_asks_for_it(
    text: str, tmp_path: pathlib.Path, *, is_asked_for: bool
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    file = context / "Dockerfile"
    file.write_text(text)
    request = BuildRequest(dockerfile=file, context=context, scratch=tmp_path, epoch=7)
    with staged(request, lambda _: None) as stage:
        given = epoch_argument(request, stage)
        assert given == (["--build-arg=SOURCE_DATE_EPOCH=7"] if is_asked_for else [])
