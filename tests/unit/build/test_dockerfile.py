"""Dockerfiles as the native builder reads and runs them, and the line of each refusal."""

import gzip
import hashlib
import os
import pathlib
import re
import signal
import socket
import stat

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.support import saved_images

from cloister.build.command import check_command
from cloister.build.dockerfile import BuiltImage, run
from cloister.build.dockerfile.expand import expand
from cloister.build.dockerfile.glob import compiled
from cloister.build.dockerfile.ignore import Ignore
from cloister.build.dockerfile.parse import parse
from cloister.build.dockerfile.place import Place
from cloister.build.dockerfile.run import Options
from cloister.build.dockerfile.words import split
from cloister.build.rootfs import Directory, File, Symlink
from cloister.errors import MalformedImage, MissingInput

PLACE = Place("Dockerfile", 1)


@pytest.fixture
def context(tmp_path: pathlib.Path) -> pathlib.Path:
    root = tmp_path / "context"
    (root / "src" / "deep").mkdir(parents=True)
    (root / "app").write_bytes(b"program")
    (root / "app").chmod(0o755)
    (root / "a.txt").write_text("a")
    (root / "b.txt").write_text("b")
    (root / "src" / "one.py").write_text("one")
    (root / "src" / "deep" / "two.py").write_text("two")
    (root / "src" / "link").symlink_to("one.py")
    for path in root.rglob("*"):
        if path.is_file() and path.name != "app":
            path.chmod(0o644)
    return root


def build(context: pathlib.Path, text: str, **options: object) -> BuiltImage:
    file = context.parent / "Dockerfile"
    file.write_text(text)
    return run(file, context, Options(**options))  # type: ignore[arg-type]


def from_scratch(context: pathlib.Path, *lines: str, **options: object) -> BuiltImage:
    return build(context, "\n".join(["FROM scratch", *lines, ""]), **options)


def paths(image: BuiltImage) -> list[str]:
    return [path.decode() for path, _ in image.tree]


def bytes_of_tar() -> bytes:
    # Bytes that do not compress, and the same ones each time.
    data = hashlib.shake_256(b"archive").digest(9000)
    return saved_images.layer(saved_images.file("from-archive", data))


def content(image: BuiltImage, path: str) -> bytes:
    node = image.tree.node(path.encode())
    assert isinstance(node, File)
    return b"".join(node.content.blocks())


def test_the_settings_of_an_image(context: pathlib.Path) -> None:
    image = build(
        context,
        """\
# syntax=docker/dockerfile:1
# a comment
ARG BASE=scratch
from ${BASE} AS only
ARG VERSION=1.0 UNUSED
ENV A=1 B="two words" C='$A' D=$A\\ x E=${NOPE:-fallback}
ENV LEGACY  spaced   value
ENV A=2 F=$A
LABEL org.example.version=$VERSION "with space"="x y"
WORKDIR /srv
WORKDIR app/../web
USER 1000:1000
EXPOSE 8080 9000-9001/udp \\
# a comment inside

  7000/tcp
STOPSIGNAL SIGQUIT
COPY app /app
ENTRYPOINT ["/app", "--flag"]
CMD ["one", "two"]
HEALTHCHECK --interval=5s CMD curl -f http://localhost/
""",
    )
    config = image.config
    assert config.env == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "A": "2",
        "B": "two words",
        "C": "$A",
        "D": " x",
        "E": "fallback",
        "LEGACY": "spaced   value",
        "F": "1",
    }
    assert config.labels == {"org.example.version": "1.0", "with space": "x y"}
    assert config.exposed == [(8080, "tcp"), (9000, "udp"), (9001, "udp"), (7000, "tcp")]
    assert config.healthcheck is not None
    assert config.healthcheck.test == ["CMD-SHELL", "curl -f http://localhost/"]
    assert config.process() == {
        "argv": ["/app", "--flag", "one", "two"],
        "env": [[name, value] for name, value in config.env.items()],
        "cwd": "/srv/web",
        "user": "1000:1000",
        "groups": [],
        "stop_signal": int(signal.SIGQUIT),
    }
    assert paths(image) == ["app", "srv", "srv/web"]


def test_build_arguments(context: pathlib.Path) -> None:
    lines = ["ARG A=1", "ARG B", "ARG TARGETARCH", "ENV X=$A Y=$B Z=$TARGETARCH"]
    given_args = {"A": "9", "NOT_ASKED": "x"}
    image = from_scratch(context, *lines, build_args=given_args, architecture="arm64")
    assert [image.config.env[name] for name in "XYZ"] == ["9", "", "arm64"]
    assert image.warnings == ["no ARG takes the build argument NOT_ASKED"]
    outside = "ARG V=1\nFROM scratch\nENV BEFORE=$V\nARG V\nENV AFTER=$V\n"
    env = build(context, outside).config.env
    assert (env["BEFORE"], env["AFTER"]) == ("", "1")
    over = "FROM scratch\nARG V=1\nENV V=2\nENV SEEN=$V\n"
    assert build(context, over, build_args={"V": "3"}).config.env["SEEN"] == "2"


def test_files_are_copied_where_docker_puts_them(context: pathlib.Path) -> None:
    image = from_scratch(
        context,
        "WORKDIR /work",
        "COPY app renamed",
        "COPY app folder/",
        "COPY app folder",
        "COPY *.txt ./texts/",
        "COPY src /all",
        'COPY ["a.txt", "/with space"]',
        "COPY --chown=7:8 --chmod=0750 src/deep /owned/",
        "ADD b.txt /added",
    )
    assert paths(image) == [
        "added",
        "all",
        "all/deep",
        "all/deep/two.py",
        "all/link",
        "all/one.py",
        "owned",
        "owned/two.py",
        "with space",
        "work",
        "work/folder",
        "work/folder/app",
        "work/renamed",
        "work/texts",
        "work/texts/a.txt",
        "work/texts/b.txt",
    ]
    tree = image.tree
    link, owned, app = (tree.node(p) for p in (b"all/link", b"owned/two.py", b"work/renamed"))
    assert isinstance(link, Symlink)
    assert link.target == b"one.py"
    assert owned is not None
    assert (owned.uid, owned.gid, owned.mode) == (7, 8, 0o750)
    assert app is not None
    assert (app.uid, app.gid, app.mode) == (0, 0, 0o755)
    assert content(image, "work/renamed") == b"program"


def test_a_destination_through_a_link_stays_in_the_image(context: pathlib.Path) -> None:
    (context / "links").mkdir()
    (context / "links" / "up").symlink_to("../../../../../../etc")
    (context / "links" / "abs").symlink_to("/usr/bin")
    image = from_scratch(
        context, "COPY links /", "COPY a.txt /up/x", "COPY a.txt /abs/", "COPY b.txt /abs/a.txt"
    )
    assert "etc/x" in paths(image)
    assert content(image, "etc/x") == b"a"
    # `/abs` leads to a folder that is not there: Docker makes it.
    assert content(image, "usr/bin/a.txt") == b"b"


def test_a_link_that_is_copied_by_name_is_followed_in_the_context(context: pathlib.Path) -> None:
    (context / "to-app").symlink_to("app")
    (context / "to-src").symlink_to("src")
    image = from_scratch(context, "COPY to-app /x", "COPY to-src/deep /y")
    assert content(image, "x") == b"program"
    assert content(image, "y/two.py") == b"two"


@pytest.mark.parametrize(
    ("lines", "line", "message"),
    [
        (["RUN make"], 2, "RUN needs a container"),
        (["RUN --mount=type=cache,target=/x make"], 2, "RUN needs a container"),
        (["COPY --from=builder /a /b"], 2, "`builder` names no stage before this line"),
        (["COPY --parents a /b"], 2, "--parents is not supported"),
        (["COPY --nonsense a /b"], 2, "no flag --nonsense"),
        (["COPY --chown=root a.txt /b"], 2, "no user 'root' in /etc/passwd of the image"),
        (["COPY --chown=9999999999 a.txt /b"], 2, "is larger than"),
        (["COPY --chmod=u+x a.txt /b"], 2, "expected an octal mode"),
        (["COPY a.txt"], 2, "lacks a source and a destination"),
        (["COPY nothing /b"], 2, "not in the build context"),
        (["COPY nothing* /b"], 2, "not in the build context"),
        (["COPY ../secret /b"], 2, "leads out of the build context"),
        (["COPY src/../../secret /b"], 2, "leads out of the build context"),
        (["COPY out/secret /b"], 2, "leads out of the build context"),
        (["COPY absolute /b"], 2, "leads out of the build context"),
        (["COPY loop /b"], 2, "leads out of the build context"),
        (["COPY a.txt b.txt /b"], 2, "must then end in `/`"),
        (["COPY a.txt /b", "COPY a.txt /b/c"], 3, "is there already, and is not a folder"),
        (
            ["COPY src /s", "COPY a.txt /x/", "COPY src/deep /x/a.txt"],
            4,
            "is there already, and is not a folder",
        ),
        (["COPY <<EOF /b", "text"], 2, "the heredoc 'EOF' has no end"),
        (["ADD https://example.com/x /b"], 2, "remote file"),
        (["ADD archive.tar.gz /b"], 2, "`archive.tar.gz` ends inside its gzip stream"),
        (["NONSENSE x"], 2, "no instruction NONSENSE"),
        (["", "  # comment", "ENV A"], 4, "has no value"),
        (["ENV A=1 B"], 2, "expected name=value"),
        (['ENV A="x'], 2, "no second one"),
        (["ENV A=${B"], 2, "`${"),
        (["ENV A=${B^^}"], 2, "form of substitution"),
        (['ENV A="${B:?must be set}"'], 2, "must be set"),
        (["EXPOSE http"], 2, "expected a port"),
        (["EXPOSE 70000"], 2, "expected a port"),
        (["STOPSIGNAL SIGNOPE"], 2, "no signal"),
        (["STOPSIGNAL 0"], 2, "no signal"),
        (["HEALTHCHECK maybe"], 2, "takes NONE or CMD"),
        (["ARG 1=2"], 2, "is not a name"),
        (["WORKDIR"], 2, "lacks"),
        (["SHELL sh"], 2, "JSON list"),
        (["ENV A=1 \\", "  B=2 \\", "  C"], 2, "expected name=value"),
    ],
)
def test_a_refusal_names_the_line(
    context: pathlib.Path, lines: list[str], line: int, message: str
) -> None:
    (context.parent / "secret").write_text("secret")
    (context / "out").symlink_to("..")
    (context / "absolute").symlink_to(context.parent / "secret")
    (context / "loop").symlink_to("loop")
    (context / "archive.tar.gz").write_bytes(gzip.compress(bytes_of_tar())[:-9])
    with pytest.raises(
        MalformedImage, match=message.replace("$", r"\$").replace("{", r"\{")
    ) as got:
        from_scratch(context, *lines)
    assert got.value.message.startswith(f"{context.parent / 'Dockerfile'}:{line}: ")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "there is no FROM"),
        ("# nothing\n", 1, "there is no FROM"),
        ("ENV A=1\nFROM scratch\n", 1, "stands before FROM"),
        ("FROM debian:12\n", 1, "needs a base image"),
        ("ARG B=debian\nFROM $B\n", 2, "`debian` needs"),
        ("FROM scratch AS\n", 1, "expected FROM image AS name"),
        ("FROM --platform=linux/s390x scratch\n", 1, "not the platform of this build"),
        ("# escape=x\nFROM scratch\n", 1, "`escape`"),
        ("# syntax=dockerfile\n# syntax=dockerfile\nFROM scratch\n", 2, "twice"),
        ("# syntax=example.com/other\nFROM scratch\n", 1, "the file is no Dockerfile"),
        ("# check=nonsense\nFROM scratch\n", 1, "expected skip=RULE"),
    ],
)
def test_a_refused_head(context: pathlib.Path, text: str, line: int, message: str) -> None:
    with pytest.raises(MalformedImage, match=message.replace("$", r"\$")) as got:
        build(context, text)
    assert f"Dockerfile:{line}: " in got.value.message


def test_what_needs_another_builder_says_which_there_are(context: pathlib.Path) -> None:
    for text in ("FROM scratch\nRUN x\n", "FROM debian\n", "FROM scratch\nADD git@x:y /\n"):
        with pytest.raises(MalformedImage) as got:
            build(context, text)
        assert "`--builder docker`, `buildah` and `podman`" in (got.value.hint or "")


def test_the_escape_directive(context: pathlib.Path) -> None:
    image = build(context, "# escape=`\nFROM scratch\nENV A=c:\\x `\n  B=`$A\n")
    assert image.config.env["A"] == "c:\\x"
    assert image.config.env["B"] == "$A"


def test_windows_line_ends_and_a_byte_order_mark(context: pathlib.Path) -> None:
    image = build(context, "\ufeffFROM scratch\r\nENV A=1 \\\r\n B=2\r\n")
    assert (image.config.env["A"], image.config.env["B"]) == ("1", "2")


def test_shell_forms(context: pathlib.Path) -> None:
    lines = ["COPY app /bin/sh", "ENTRYPOINT exec /app $HOME", "CMD x"]
    image = from_scratch(context, *lines)
    assert image.config.argv == ["/bin/sh", "-c", "exec /app $HOME", "/bin/sh", "-c", "x"]
    image = from_scratch(context, "COPY app /my", 'SHELL ["/my", "-e"]', "CMD x y")
    assert image.config.argv == ["/my", "-e", "x y"]
    image = from_scratch(context, "COPY app /bin/sh", "CMD ['/app']")
    assert "JSON" in image.warnings[0]


@pytest.mark.parametrize(
    "lines",
    [
        ['ENTRYPOINT ["/app"]'],
        ["COPY app /app", "ENTRYPOINT /app"],
        ["COPY src /app", 'ENTRYPOINT ["/app"]'],
        ["COPY app /opt/app", 'CMD ["app"]'],
        ["COPY app /opt/app", 'CMD ["./app"]'],
    ],
)
def test_a_program_that_is_not_there_is_said_at_build_time(
    context: pathlib.Path, lines: list[str]
) -> None:
    image = from_scratch(context, *lines)
    with pytest.raises(MalformedImage, match="is not in the image"):
        check_command(image.tree, image.config)


def test_a_program_that_nobody_may_execute_is_said_at_build_time(context: pathlib.Path) -> None:
    image = from_scratch(context, "COPY a.txt /app", 'CMD ["/app"]')
    with pytest.raises(MalformedImage, match="`/app`, which the image is to run, is not exec"):
        check_command(image.tree, image.config)
    image = from_scratch(context, "COPY --chmod=700 a.txt /app", 'CMD ["/app"]')
    check_command(image.tree, image.config)


@pytest.mark.parametrize(
    "lines",
    [
        ["COPY app /app", 'ENTRYPOINT ["/app"]'],
        ["COPY app /bin/app", 'CMD ["app"]'],
        ["WORKDIR /opt", "COPY app .", 'CMD ["./app"]'],
        ["ENV PATH=/opt", "COPY app /opt/app", 'CMD ["app"]'],
    ],
)
def test_a_program_that_is_there(context: pathlib.Path, lines: list[str]) -> None:
    image = from_scratch(context, *lines)
    check_command(image.tree, image.config)
    assert image.config.process()["argv"]


def test_an_image_that_runs_nothing(context: pathlib.Path) -> None:
    with pytest.raises(MalformedImage, match="neither ENTRYPOINT nor CMD"):
        from_scratch(context).config.process()


def test_special_files_are_refused_unless_ignored(context: pathlib.Path) -> None:
    os.mkfifo(context / "src" / "pipe")
    with pytest.raises(MalformedImage, match="Dockerfile:2: `src/pipe` is a device node, pipe"):
        from_scratch(context, "COPY src /s")
    with socket.socket(socket.AF_UNIX) as listener:
        short = pathlib.Path("/tmp") / f"c-{os.getpid()}.sock"  # noqa: S108 - paths are bounded
        listener.bind(str(short))
        short.rename(context / "socket")
    with pytest.raises(MalformedImage, match="`socket` is a device node"):
        from_scratch(context, "COPY socket /s")
    (context / ".dockerignore").write_text("src/pipe\n")
    assert "s/one.py" in paths(from_scratch(context, "COPY src /s"))


def test_private_files_are_never_copied(context: pathlib.Path) -> None:
    (context / ".cloister" / "dev").mkdir(parents=True)
    (context / ".cloister" / "dev" / "master.key").write_text("secret")
    (context / "enclave.toml").write_text("")
    (context / "alias").symlink_to(".cloister")
    private = frozenset({context / ".cloister", context / "enclave.toml"})
    (context / ".dockerignore").write_text("!.cloister\n")
    image = from_scratch(context, "COPY . /all", private=private)
    assert "all/app" in paths(image)
    assert not [path for path in paths(image) if "master" in path or "toml" in path]
    assert image.left_out == [".cloister", "enclave.toml"]
    for source in (".cloister", ".cloister/dev/master.key", "alias/dev/master.key", "enclave.toml"):
        with pytest.raises(MalformedImage, match="not in the build context"):
            from_scratch(context, f"COPY {source} /x", private=private)


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        ("", ["a", "b/c", "b/d/e.py", "b/d/f.txt"]),
        ("*\n", []),
        ("b\n", ["a"]),
        ("/b/\n", ["a"]),
        ("b/*\n!b/c\n", ["a", "b/c"]),
        ("*\n!b/d/e.py\n", ["b/d/e.py"]),
        ("**/*.py\n", ["a", "b/c", "b/d/f.txt"]),
        ("b/**\n", ["a"]),
        ("*.txt\n", ["a", "b/c", "b/d/e.py", "b/d/f.txt"]),
        ("b/?/[e-f].*\n", ["a", "b/c"]),
        ("b/?/[^e].*\n", ["a", "b/c", "b/d/e.py"]),
        ("# a\n\n  a  \n", ["b/c", "b/d/e.py", "b/d/f.txt"]),
        ("./b/../a\n", ["b/c", "b/d/e.py", "b/d/f.txt"]),
        ("!a\na\n", ["b/c", "b/d/e.py", "b/d/f.txt"]),
    ],
)
def test_dockerignore(tmp_path: pathlib.Path, patterns: str, left: list[str]) -> None:
    root = tmp_path / "context"
    for name in ("a", "b/c", "b/d/e.py", "b/d/f.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    (root / ".dockerignore").write_text(patterns)
    if left:
        image = from_scratch(root, "COPY . /")
        files = [path.decode() for path, node in image.tree if isinstance(node, File)]
        assert [name for name in files if name != ".dockerignore"] == left
    ignore = Ignore.read(patterns, ".dockerignore")
    names = ("a", "b/c", "b/d/e.py", "b/d/f.txt")
    assert [name for name in names if not ignore.leaves_out(name)] == left


@pytest.mark.parametrize(
    "pattern",
    ["*a" * 60 + "b", "**/*a/" * 60 + "b", "**/a/" * 60 + "b", "**a**b", "[a-b]*" * 60 + "c"],
)
def test_t17_no_pattern_takes_for_ever(pattern: str) -> None:
    """A pattern and the name it meets may both be somebody else's."""
    ignore = Ignore.read(pattern, "f")
    for name in ("a" * 250, "a/" * 1000 + "a", "/".join(["a" * 250] * 16)):
        assert not ignore.leaves_out(name)


@given(
    pattern=st.lists(st.sampled_from(["a", "b", "*", "?", "**", "/", "[a]"]), max_size=7),
    name=st.text(alphabet="ab/", min_size=1, max_size=9),
)
def test_a_pattern_means_the_same_however_it_is_tried(pattern: list[str], name: str) -> None:
    """Against the expression that tries every way, as moby's patternmatcher has it."""
    parts = [part for part in "".join(pattern).split("/") if part]
    cleaned = re.sub(r"\*{3,}", "**", "/".join(parts))
    # In a name, as in `a**/b`, it stands for any text here, and for folders too in moby.
    assume(not any("**" in part and part != "**" for part in cleaned.split("/")))
    plain = re.escape(cleaned).replace(r"\[a\]", "a").replace(r"\*\*/", "(?:.*/)?")
    plain = plain.replace(r"\*\*", ".*").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    found = compiled(cleaned).fullmatch(name)
    assert (found is not None) == (re.fullmatch(plain, name) is not None), (cleaned, name)


def test_a_wrong_dockerignore_names_its_line(context: pathlib.Path) -> None:
    (context / ".dockerignore").write_text("a\n[b\n")
    with pytest.raises(MalformedImage, match=r"\.dockerignore:2: .*\[ without its \]"):
        from_scratch(context, "COPY app /app")
    # A file of the Dockerfile's own wins.
    (context.parent / "Dockerfile.dockerignore").write_text("app\n")
    with pytest.raises(MalformedImage, match="not in the build context"):
        from_scratch(context, "COPY app /app")


def test_a_file_that_changes_while_it_is_read(context: pathlib.Path) -> None:
    image = from_scratch(context, "COPY a.txt b.txt /x/")
    (context / "a.txt").write_text("longer than before")
    (context / "b.txt").write_text("")
    for name in ("x/a.txt", "x/b.txt"):
        with pytest.raises(MalformedImage, match="changed while it was read"):
            content(image, name)


def test_files_that_are_not_there(context: pathlib.Path) -> None:
    with pytest.raises(MissingInput, match="no Dockerfile"):
        run(context / "Dockerfile", context, Options())
    (context / "Dockerfile").write_bytes(b"FROM scratch\n# \xff\n")
    with pytest.raises(MalformedImage, match="Dockerfile:2: not UTF-8"):
        run(context / "Dockerfile", context, Options())
    with pytest.raises(MissingInput, match="is not a folder"):
        run(context / "Dockerfile", context / "nowhere", Options())


@pytest.mark.parametrize(
    ("mode", "kept"), [(0o4711, 0o755), (0o775, 0o755), (0o664, 0o644), (0o600, 0o644)]
)
def test_whether_a_file_may_be_executed_is_kept_and_nothing_else_of_its_mode(
    mode: int, kept: int, context: pathlib.Path
) -> None:
    """The rest is what a umask left; --chmod sets any mode."""
    (context / "app").chmod(mode)
    node = from_scratch(context, "COPY app /app").tree.node(b"app")
    assert node is not None
    assert stat.S_IMODE(node.mode) == kept
    node = from_scratch(context, "COPY --chmod=4711 app /app").tree.node(b"app")
    assert node is not None
    assert stat.S_IMODE(node.mode) == 0o4711


def test_a_working_directory_is_made(context: pathlib.Path) -> None:
    assert isinstance(from_scratch(context, "WORKDIR /a/b").tree.node(b"a/b"), Directory)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("$A", "1"),
        ("${A}x", "1x"),
        ("$Ax", ""),
        ("\\$A", "$A"),
        ("'$A'", "$A"),
        ('"$A"', "1"),
        ('"\\$A \\" \\x"', '$A " \\x'),
        ("a'b c'\"d e\"f", "ab cd ef"),
        ("${E}", ""),
        ("${E-x}", ""),
        ("${E:-x}", "x"),
        ("${N-x}", "x"),
        ("${N:-${A}y}", "1y"),
        ("${A:+set}", "set"),
        ("${E:+set}", ""),
        ("${E+set}", "set"),
        ("${N+set}", ""),
        ("${A:?no}", "1"),
        ("$", "$"),
        ("a$-b", "a$-b"),
    ],
)
def test_substitution(word: str, value: str) -> None:
    assert expand(word, {"A": "1", "E": ""}, "\\", PLACE) == value


@given(st.text(alphabet="ab \t\"'\\$", max_size=30).map(lambda text: text.rstrip("\\")))
def test_splitting_loses_nothing_but_space(text: str) -> None:
    """And an escape at the very end, which escapes nothing."""
    joined = "".join(split(text, "\\"))
    assert [char for char in joined if not char.isspace()] == [
        char for char in text if not char.isspace()
    ]


@given(st.text(alphabet="FROMscratchCPY ENV=\\\n#\"'[]$-{}", max_size=80))
def test_any_text_is_read_or_refused_with_a_line(text: str) -> None:
    problem = None
    try:
        parse(text, "Dockerfile")
    except MalformedImage as caught:
        problem = caught
    assert problem is None or problem.message.startswith("Dockerfile:")
