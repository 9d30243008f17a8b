"""docker, buildah and podman build for real: what reaches an image, what is said, what stays.

Each test runs with every builder of this machine: the classic builder and BuildKit over a private
dockerd, buildah and podman over a store of their own.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator

import pytest
from tests.support.container_daemon import Daemon, Store

from cloister.build.builders import BuildRequest, ContainerBuilder
from cloister.build.sources import SavedImage
from cloister.errors import BuildFailed, MissingInput, UsageError

DOCKER = ("classic", "buildkit")
ALL = (*DOCKER, "buildah", "podman")
KEY = "-----BEGIN PRIVATE KEY-----\nnot one\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A builder, and where its things are.

    Args:
        builder: The builder.
        base: Name of the base image in its store.
        containers: Lists all containers of its store.
    """

    builder: ContainerBuilder
    base: str
    containers: Callable[[], list[str]]


@pytest.fixture(params=ALL)
def case(request: pytest.FixtureRequest) -> Case:
    name: str = request.param
    if name in DOCKER:
        daemon: Daemon = request.getfixturevalue("docker_daemon")
        builders = daemon.builders()
        if name not in builders:
            pytest.skip("no docker client has BuildKit: install docker.io or docker-buildx")
        base: str = request.getfixturevalue("small_in_docker")
        return Case(
            builder=builders[name],
            base=base,
            containers=lambda: _running(daemon),
        )
    store: Store = request.getfixturevalue("container_store")
    found = store.builders()
    if name not in found:
        pytest.skip(f"`{name}` is not there: install {name}")
    base = request.getfixturevalue("small_in_store")
    builder = found[name]
    return Case(builder=builder, base=base, containers=lambda: _listed(builder))


def _running(daemon: Daemon) -> list[str]:
    return daemon.docker("ps", "--all", "--quiet").stdout.split()


def _listed(builder: object) -> list[str]:
    listing = builder._listing()  # type: ignore[attr-defined]
    command = [builder.program, *builder.options, *listing]  # type: ignore[attr-defined]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [str(item) for item in json.loads(told) or []]


@pytest.fixture
def context(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "context"
    folder.mkdir()
    return folder


def write(context: pathlib.Path, dockerfile: str) -> pathlib.Path:
    file = context / "Dockerfile"
    file.write_text(textwrap.dedent(dockerfile))
    return file


@contextlib.contextmanager
def files(
    case: Case, request: BuildRequest, folder: pathlib.Path, told: list[str] | None = None
) -> Iterator[dict[str, tarfile.TarInfo]]:
    """What is in the layers that the image has on top of its base."""
    lines = told if told is not None else []
    with case.builder.build(request, lines.append) as stored:
        archive = folder / "saved.tar"
        stored.save(archive)
        found = {}
        with tarfile.open(archive) as tar:
            (manifest,) = json.load(read(tar, "manifest.json"))
            for layer in manifest["Layers"][1:]:
                with tarfile.open(fileobj=read(tar, layer)) as inner:
                    found |= {member.name.removeprefix("./"): member for member in inner}
        yield found


def read(tar: tarfile.TarFile, name: str):  # noqa: ANN201 - IO[bytes]
    file = tar.extractfile(name)
    assert file is not None
    return file


def test_a_private_file_cannot_be_copied_into_an_image(
    case: Case, context: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Neither by name nor by `COPY . .`, nor under another name; what is not private is copied."""
    file = write(context, f"FROM {case.base}\nCOPY . /copied\n")
    for path in ("enclave-key.pem", ".cloister/dev/store", "keys/inner.pem", "app"):
        (context / path).parent.mkdir(parents=True, exist_ok=True)
        (context / path).write_text(KEY)
    (context / "second-name").hardlink_to(context / "enclave-key.pem")
    private = {context / "enclave-key.pem", context / ".cloister", context / "keys/inner.pem"}
    told: list[str] = []
    request = BuildRequest(dockerfile=file, context=context, private=frozenset(private))
    before = {path: path.lstat() for path in context.rglob("*")}
    with files(case, request, tmp_path, told) as found:
        names = {name for name in found if name.startswith("copied/")}
        assert names - {"copied/", "copied"} == {"copied/Dockerfile", "copied/app", "copied/keys"}
    assert {path: path.lstat() for path in context.rglob("*")}.keys() == before.keys()
    assert all(path.lstat().st_ctime_ns == was.st_ctime_ns for path, was in before.items())
    (line,) = [line for line in told if line.startswith("private, kept out of the build")]
    for name in ("enclave-key.pem", ".cloister", "keys/inner.pem", "second-name"):
        assert name in line


def test_a_private_file_named_in_copy_fails_and_says_why(case: Case, context: pathlib.Path) -> None:
    (context / "enclave-key.pem").write_text(KEY)
    (context / "other.pem").write_text(KEY)
    private = frozenset({context / "enclave-key.pem"})
    file = write(context, f"FROM {case.base}\nCOPY other.pem /\n")
    request = BuildRequest(dockerfile=file, context=context, private=private)
    with case.builder.build(request, lambda _: None):
        pass
    write(context, f"FROM {case.base}\nCOPY enclave-key.pem /\n")
    with pytest.raises(BuildFailed) as caught, case.builder.build(request, lambda _: None):
        pass
    assert caught.value.hint is not None
    assert "enclave-key.pem: private" in caught.value.hint


def test_a_bind_mount_does_not_show_a_private_file(
    request: pytest.FixtureRequest, context: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Version 1.28 of buildah mounts the whole context, whatever a file of patterns says."""
    store: Store = request.getfixturevalue("container_store")
    base: str = request.getfixturevalue("small_in_store")
    builders = store.builders()
    if "buildah" not in builders:
        pytest.skip("`buildah` is not there: install buildah")
    case = Case(builder=builders["buildah"], base=base, containers=list)
    (context / "enclave-key.pem").write_text(KEY)
    (context / "app").write_text("app")
    mount = "--mount=type=bind,target=/context"
    file = write(context, f"FROM {base}\nRUN {mount} mkdir /seen && cp -r /context/. /seen/\n")
    wanted = BuildRequest(
        dockerfile=file, context=context, private=frozenset({context / "enclave-key.pem"})
    )
    with files(case, wanted, tmp_path) as found:
        assert "seen/app" in found
        assert "seen/enclave-key.pem" not in found


def test_what_dockerignore_leaves_out_is_not_copied(
    case: Case, context: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A file beside the Dockerfile wins over the folder's own; links and modes are kept."""
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    dockerfile = outside / "My.Dockerfile"
    dockerfile.write_text(f"FROM {case.base}\nCOPY . /copied\n")
    (outside / "My.Dockerfile.dockerignore").write_text("*.log\n!keep.log\nbig\n")
    (context / ".dockerignore").write_text("app\n")
    for name in ("app", "a.log", "keep.log", "big/data"):
        (context / name).parent.mkdir(exist_ok=True)
        (context / name).write_text(name)
    (context / "app").chmod(0o751)
    (context / "link").symlink_to("app")
    os.mkfifo(context / "pipe")
    told: list[str] = []
    request = BuildRequest(dockerfile=dockerfile, context=context)
    with files(case, request, tmp_path, told) as found:
        names = {name for name in found if name.startswith("copied/")} - {"copied/.dockerignore"}
        assert names - {"copied/"} == {"copied/app", "copied/keep.log", "copied/link"}
        assert found["copied/app"].mode & 0o777 == 0o755, "as on every machine"
        assert found["copied/app"].uid == 0
        assert found["copied/link"].linkname == "app"
    assert any("pipe" in line for line in told)


def test_a_failing_line_gives_its_last_lines_and_its_status(
    case: Case, context: pathlib.Path
) -> None:
    lines = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do"
    file = write(
        context,
        f"""\
        FROM {case.base}
        RUN {lines} echo "line-$i"; done; printf '\\033[31mred\\007bell\\n' >&2; exit 3
        """,
    )
    told: list[str] = []
    request = BuildRequest(dockerfile=file, context=context)
    with pytest.raises(BuildFailed) as caught, case.builder.build(request, told.append):
        pass
    shown = caught.value.message.splitlines()
    assert 2 <= len(shown) <= 21
    assert "line-25" in caught.value.message
    assert all(line.isprintable() for line in shown)
    assert any("line-1" in line for line in told)
    assert caught.value.exit_status == builder_status(case)
    assert f"status {caught.value.exit_status}" in shown[0]
    assert case.containers() == []


def builder_status(case: Case) -> int:
    """What each ends with when a line ended with 3: BuildKit says 1 for every failure."""
    return 1 if getattr(case.builder, "buildkit", False) else 3


def test_arguments_target_and_cache_reach_the_builder(
    case: Case, context: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    file = write(
        context,
        f"""\
        FROM {case.base} AS first
        ARG NAME=default
        RUN echo "$NAME" > "/made-$NAME" && date +%N > /when
        FROM first AS second
        RUN touch /second
        """,
    )
    request = BuildRequest(
        dockerfile=file, context=context, build_args={"NAME": "given=x y"}, target="first"
    )
    with files(case, request, tmp_path) as found:
        assert "made-given=x y" in found
        assert "second" not in found
    with case.builder.build(request, lambda _: None) as again:
        cached = again.identity
    with case.builder.build(request, lambda _: None) as once_more:
        assert once_more.identity == cached
        (base,) = once_more.bases
        assert re.fullmatch(rf"(docker\.io/)?{case.base}(@sha256:\w{{64}}| \(of this .*)", base)
    fresh = dataclasses.replace(request, no_cache=True)
    with case.builder.build(fresh, lambda _: None) as built:
        assert built.identity != cached


def test_a_dockerfile_that_asks_for_the_epoch_has_it_with_every_builder(
    case: Case, context: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    asks = "ARG SOURCE_DATE_EPOCH=0\n"
    write = 'RUN echo "${SOURCE_DATE_EPOCH-none}" > /epoch\n'
    for lines, given, expected in [
        (f"{asks}{write}", {}, "1234567890"),
        (f"{asks}{write}", {"SOURCE_DATE_EPOCH": "42"}, "42"),
        (write, {}, "none"),
    ]:
        (context / "Dockerfile").write_text(f"FROM {case.base}\n{lines}")
        request = BuildRequest(
            dockerfile=context / "Dockerfile",
            context=context,
            build_args=given,
            epoch=1234567890,
        )
        told: list[str] = []
        (tmp_path / expected).mkdir()
        with files(case, request, tmp_path / expected, told) as found:
            assert found["epoch"].size == len(f"{expected}\n")
        assert not [line for line in told if "not consumed" in line]


def test_a_secret_is_there_for_a_line_and_nowhere_else(
    case: Case, context: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "token").write_text("s3cret")
    mount = "--mount=type=secret,id=token"
    file = write(context, f"FROM {case.base}\nRUN {mount} wc -c < /run/secrets/token > /length\n")
    request = BuildRequest(
        dockerfile=file, context=context, secrets=(f"id=token,src={tmp_path / 'token'}",)
    )
    if getattr(case.builder, "buildkit", True) is False:
        with pytest.raises(UsageError, match="BuildKit"), case.builder.build(request, print):
            pass
        return
    with files(case, request, tmp_path) as found:
        assert found["length"].size == len("6\n")
        assert "run/secrets/token" not in found or found["run/secrets/token"].size == 0


def test_a_saved_image_is_read_as_what_was_built(
    case: Case, context: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    file = write(
        context,
        f"""\
        FROM {case.base}
        RUN groupadd --gid 700 people && useradd --uid 700 --gid 700 somebody
        COPY --chown=somebody:people app /app
        ENV A=1
        USER somebody
        EXPOSE 8008
        ENTRYPOINT ["/app"]
        CMD ["x"]
        """,
    )
    (context / "app").write_text("app")
    request = BuildRequest(dockerfile=file, context=context)
    with case.builder.build(request, lambda _: None) as stored:
        archive = tmp_path / "saved.tar"
        stored.save(archive)
        identity = stored.identity
    saved = SavedImage(archive, tmp_path)
    assert saved.identity == identity
    image = saved.load()
    assert image.config.argv == ["/app", "x"]
    assert image.config.user == "somebody"
    node = image.tree.node(b"app")
    assert node is not None
    assert (node.uid, node.gid) == (700, 700)
    assert image.tree.node(b"usr/bin/sh") is not None


def test_an_image_of_the_store_is_found_by_its_name(case: Case, tmp_path: pathlib.Path) -> None:
    case.builder.find(case.base).save(tmp_path / "base.tar")
    assert SavedImage(tmp_path / "base.tar", tmp_path).config.architecture == "amd64"
    with pytest.raises(MissingInput, match="no image `cloister-tests/nothing"):
        case.builder.find("cloister-tests/nothing:1")


def test_ctrl_c_ends_the_build_and_leaves_nothing(case: Case, context: pathlib.Path) -> None:
    """The program of the RUN that was running, containers, temporary files: all of it is gone."""
    marker = f"3{time.time_ns() % 10**9}"
    write(context, f"FROM {case.base}\nRUN echo started; sleep {marker}; sleep 1{marker}\n")
    script = f"""
import pathlib, sys
from cloister.build.builders import *
from cloister.build.builders.buildah import Buildah, Podman
from cloister.build.builders.docker import Docker
builder = {case.builder!r}
context = pathlib.Path({str(context)!r})
request = BuildRequest(dockerfile=context / "Dockerfile", context=context)
with builder.build(request, lambda line: print(line, flush=True)):
    pass
"""
    temporary = context.parent / "temporary"
    temporary.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ) | {"TMPDIR": str(temporary)},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        wait_until(lambda: running_with(marker), 60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in err, (out, err)
    wait_until(lambda: not running_with(marker), 10)
    wait_until(lambda: not case.containers(), 10)
    assert list(temporary.iterdir()) == []
    assert not list(pathlib.Path(tempfile.gettempdir()).glob("cloister-build-*"))


def running_with(word: str) -> list[str]:
    found = []
    for file in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = file.read_bytes().decode(errors="replace").split("\0")
            if words[0].endswith("sleep") and any(word in text for text in words):
                found.append(file.parent.name)
    return found


def wait_until(is_true: Callable[[], object], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < until, "not in time"
        time.sleep(0.05)
