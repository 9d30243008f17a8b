"""The native builder against Docker's own: the same Dockerfile gives the same files and settings.

Both the classic builder and BuildKit build each case in a private dockerd. What is compared: every
path with its kind, mode, owner, target and bytes, and every setting that decides what runs. Times
are not: see docs/adr/0070. Where the two builders of Docker disagree with each other, the case says
so, and BuildKit is followed.
"""

import io
import os
import pathlib
import tarfile
from typing import Any

import pytest
from tests.support.container_daemon import Daemon

from cloister.build.builders import BuildRequest
from cloister.build.built_image import BuiltImage
from cloister.build.dockerfile import Options, run
from cloister.build.image_config import ImageConfig
from cloister.build.rootfs import Directory, File, Node, Symlink
from cloister.build.sources import SavedImage

CASES = {
    "files": """\
        WORKDIR /work
        COPY app renamed
        COPY app folder/
        COPY app folder
        COPY *.txt ./texts/
        COPY src /all
        COPY src/ all2/
        COPY ["with space.txt", "/with space too"]
        COPY src/link /followed
        COPY to-src /followed-folder
        COPY a.tx? /one/
        COPY src/*/*.py /globbed/
        COPY . /everything/
    """,
    "destinations": """\
        COPY links /
        COPY a.txt /up/x
        COPY a.txt /abs/
        COPY b.txt /abs/a.txt
        COPY src /abs/src
        COPY a.txt .
        COPY b.txt ./b/
        WORKDIR rel/ative
        COPY a.txt ../other
        COPY b.txt /x/../y/./z
        WORKDIR ../../..
        COPY a.txt at-the-top
    """,
    "over": """\
        COPY a.txt /f
        COPY b.txt /f
        COPY src /d
        COPY other /d
        COPY other/one.py /d/deep/
    """,
    "owners": """\
        COPY etc /etc
        COPY --chown=7:8 src /owned/
        COPY --chown=7 a.txt /new/parents/a
        COPY --chown=web a.txt /by-name
        COPY --chown=web:staff src /by-names
        COPY --chown=12:staff b.txt /mixed
        ADD --chown=3:4 b.txt /added
    """,
    "folders-of-a-user": """\
        COPY etc /etc
        USER web
        WORKDIR /of/web
        USER 7
        WORKDIR /of/web/seven
        USER 7:staff
        WORKDIR ../staff
        WORKDIR /of
        COPY a.txt /of/root
    """,
    "archives": """\
        ADD plain.tar /plain
        ADD packed.tar.gz /packed/
        ADD packed.tar.xz packed.tar.bz2 /several/
        ADD no-archive.gz /kept/
        ADD empty.tar.gz /kept/
        COPY packed.tar.gz /copied/
        ADD a.txt /plain/
    """,
    "archives-over": """\
        COPY src /d
        COPY a.txt /d/inner/file
        ADD plain.tar /d
    """,
    "ignored": """\
        COPY . /all
    """,
    "stages": """\
        ENV FIRST=1
        WORKDIR /out
        COPY --chown=5:6 src .
        COPY a.txt /out/link-target
        COPY links /links
        FROM scratch AS second
        COPY --from=0 /out /out
        COPY --from=0 /out/*.py /out/deep /flat/
        COPY --from=0 --chown=9:9 /out/one.py /chowned
        COPY --from=0 /out/link /followed
        COPY --from=0 /links /links
        FROM second
        ENV LAST=1
        COPY b.txt /out/one.py
    """,
    "settings": """\
        ARG VERSION=1.0 UNSET
        ENV A=1 B="two words" C='$A' D=$A\\ x E=${NOPE:-fallback}
        ENV LEGACY  spaced   value
        ENV A=2 F=$A G=${A:+yes}-${UNSET:-no} H="a\\"b" I=a\\$b
        LABEL org.example.version=$VERSION "with space"="x y"
        WORKDIR /srv
        WORKDIR app/../web
        USER 1000:1000
        EXPOSE 8080 9000-9001/udp \\
        # a comment inside

          7000/tcp
        STOPSIGNAL SIGQUIT
        VOLUME /data /data2/
        VOLUME ["/json", "/more"]
        SHELL ["/app", "-e"]
        COPY app /app
        ENTRYPOINT exec /app $HOME
        CMD ["one", "two"]
        HEALTHCHECK --interval=5s --timeout=1m30s --start-period=500ms --retries=2 CMD x y
    """,
    "commands": """\
        COPY app /app
        CMD ["old"]
        ENTRYPOINT ["/app", "--flag", "ü", "a\\"b"]
        HEALTHCHECK CMD ["/app", "check"]
    """,
    "commands-of-a-base": """\
        COPY app /app
        CMD ["/app", "of the base"]
        HEALTHCHECK CMD ["/app"]
        USER web
        FROM base
        ENTRYPOINT ["/app"]
        HEALTHCHECK NONE
        USER root
    """,
    "shell-commands": """\
        COPY app /bin/sh
        CMD echo $HOME && \\
            echo "two"
    """,
    "not-quite-json": """\
        COPY app /bin/sh
        ENTRYPOINT ['/app']
        CMD []
    """,
    "arguments": """\
        ARG A=default
        ARG B=default
        ARG C
        ENV SEEN="$A $B $C"
        ENV B=environment
        ARG B=later
        ENV THEN=$B
        COPY ${A}.txt /${B}/
        FROM base
        ENV INHERITED="$A $B"
        ARG B=own
        ENV OWN=$B
    """,
    "on-build": """\
        COPY a.txt /a
        ONBUILD COPY b.txt /triggered
        ONBUILD ENV T=1
        FROM base
        ENV AFTER=$T
    """,
}
ARGS = {"A": "a", "HTTP_PROXY": "http://localhost:1"}
IGNORED = "*.txt\n!a.txt\nsrc/deep\n**/lin?\n# comment\npacked*\n!packed.tar.?z\n"


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("build") / "context"
    files = {
        "app": b"program",
        "a.txt": b"a",
        "b.txt": b"b",
        "with space.txt": b"space",
        "src/one.py": b"one",
        "src/deep/two.py": b"two",
        "other/one.py": b"other one",
        "other/new/file": b"new",
        "etc/passwd": b"root:x:0:0::/:\nweb:x:33:44::/:\n",
        "etc/group": b"root:x:0:\nstaff:x:50:\n",
        "no-archive.gz": b"\x1f\x8b\x08 is no gzip",
        "empty.tar.gz": b"",
        "plain.tar": _archive(""),
        "packed.tar.gz": _archive("gz"),
        "packed.tar.bz2": _archive("bz2"),
        "packed.tar.xz": _archive("xz"),
    }
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    for name, target in {
        "src/link": "one.py",
        "to-src": "src",
        "links/up": "../../../../etc/up",
        "links/abs": "/usr/bin",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(target)
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.name == "app" else 0o644)
    return root


def _archive(compression: str) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode=f"w:{compression}") as tar:
        for name, kind, mode, link in [
            ("./inner", tarfile.DIRTYPE, 0o750, ""),
            ("./inner/file", tarfile.REGTYPE, 0o4755, ""),
            ("inner/same", tarfile.LNKTYPE, 0o4755, "inner/file"),
            ("inner/link", tarfile.SYMTYPE, 0o777, "../inner/file"),
            ("deeper/than/its/folders", tarfile.REGTYPE, 0o600, ""),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.linkname, info.uid, info.gid = kind, mode, link, 11, 12
            data = name.encode() if kind == tarfile.REGTYPE else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return raw.getvalue()


@pytest.fixture
def dockerfile(context: pathlib.Path, name: str) -> pathlib.Path:
    lines = [line[8:] for line in CASES[name].splitlines()]
    file = context.parent / f"{name}.Dockerfile"
    file.write_text("\n".join(["FROM scratch AS base", *lines, ""]))
    # One that is called as the Dockerfile is read by BuildKit alone, so it is the folder's own.
    ignore = context / ".dockerignore"
    ignore.unlink(missing_ok=True)
    if name == "ignored":
        ignore.write_text(IGNORED)
    return file


@pytest.mark.parametrize("how", ["classic", "buildkit"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_a_dockerfile_gives_the_same_image_as_docker(  # noqa: PLR0913, PLR0917 - fixtures
    name: str,
    how: str,
    dockerfile: pathlib.Path,
    context: pathlib.Path,
    docker_daemon: Daemon,
    tmp_path: pathlib.Path,
) -> None:
    if (name, how) in CLASSIC_DIFFERS:
        pytest.skip(CLASSIC_DIFFERS[name, how])
    builder = docker_daemon.builders().get(how)
    if builder is None:
        pytest.skip("no docker client has BuildKit: install docker.io or docker-buildx")
    umask = os.umask(0o022)
    try:
        request = BuildRequest(
            dockerfile=dockerfile, context=context, build_args=ARGS, scratch=tmp_path
        )
        with builder.build(request, lambda _: None) as stored:
            stored.save(tmp_path / "saved.tar")
        theirs = SavedImage(tmp_path / "saved.tar", tmp_path).load()
    finally:
        os.umask(umask)
    ours = run(dockerfile, context, Options(build_args=ARGS, scratch=tmp_path))
    found = differences(files(ours), files(theirs))
    if how == "classic":
        # For a Dockerfile outside of the context, it is left out: see `_classic` of the builder.
        found.pop("all/.dockerignore", None)
    assert found == {}
    assert differences(settings(ours.config), settings(theirs.config)) == {}


CLASSIC_DIFFERS = {
    ("arguments", "classic"): "the classic builder lets ENV win over a later ARG",
    ("folders-of-a-user", "classic"): "the classic builder makes WORKDIR as root",
    ("owners", "classic"): "the classic builder wants a group of the user's name",
}


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What one has and the other has not, or has otherwise."""
    names = sorted(ours.keys() | theirs.keys())
    found = {name: (ours.get(name), theirs.get(name)) for name in names}
    return {name: pair for name, pair in found.items() if pair[0] != pair[1]}


def files(image: BuiltImage) -> dict[str, tuple[object, ...]]:
    return {path.decode(): _attributes(node) for path, node in image.tree}


def _attributes(node: Node) -> tuple[object, ...]:
    if isinstance(node, Directory):
        return ("folder", oct(node.mode), node.uid, node.gid)
    if isinstance(node, Symlink):
        return ("link", node.target, node.uid, node.gid)
    assert isinstance(node, File)
    return ("file", oct(node.mode), node.uid, node.gid, b"".join(node.content.blocks()))


def settings(config: ImageConfig) -> dict[str, object]:
    return {
        "cmd": config.cmd,
        "cwd": config.cwd,
        "entrypoint": config.entrypoint,
        "env": list(config.env.items()),
        "exposed": sorted(config.exposed),
        "healthcheck": config.healthcheck,
        "labels": config.labels,
        "stop_signal": config.stop_signal,
        "user": config.user,
        "volumes": sorted(config.volumes),
    }
