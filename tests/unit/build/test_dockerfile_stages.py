"""Dockerfiles of several stages: what each starts from, what a stage takes from another."""

import pathlib
import stat

import pytest
from tests.support import saved_images

from cloister.build.built_image import BuiltImage
from cloister.build.dockerfile import Options, needs_container, run
from cloister.build.rootfs import Directory, File, Symlink
from cloister.build.sources import SavedImage
from cloister.errors import MalformedImage, UsageError


@pytest.fixture
def context(tmp_path: pathlib.Path) -> pathlib.Path:
    root = tmp_path / "context"
    root.mkdir()
    for name in ("a.txt", "b.txt"):
        (root / name).write_text(name)
        (root / name).chmod(0o644)
    return root


def build(context: pathlib.Path, text: str, **options: object) -> BuiltImage:
    file = context.parent / "Dockerfile"
    file.write_text(text)
    known = {"scratch": context.parent, "load_image": lambda path: load(path, context.parent)}
    return run(file, context, Options(**(known | options)))  # type: ignore[arg-type]


def load(path: pathlib.Path, scratch: pathlib.Path) -> BuiltImage:
    return SavedImage(path, scratch).load()


def content(image: BuiltImage, path: str) -> bytes:
    node = image.tree.node(path.encode())
    assert isinstance(node, File)
    return b"".join(node.content.blocks())


def paths(image: BuiltImage) -> list[str]:
    return [path.decode() for path, _ in image.tree]


def base(context: pathlib.Path, config: dict[str, object] | None = None) -> str:
    """A saved image in the context, and how FROM names it."""
    layer = saved_images.layer(
        saved_images.folder("etc"),
        saved_images.file("etc/passwd", b"root:x:0:0::/:\nweb:x:33:44::/:\n"),
        saved_images.file("etc/group", b"root:x:0:\nstaff:x:50:\n"),
        saved_images.folder("opt", mode=0o700, uid=5, gid=6),
        saved_images.file("opt/tool", b"tool", mode=0o4755, uid=7, gid=8),
        saved_images.hard_link("opt/same", "opt/tool"),
        saved_images.symlink("bin", "usr/bin"),
        saved_images.folder("usr/bin"),
        saved_images.file("usr/bin/sh", b"#!", mode=0o755),
    )
    settings = config or {"Env": ["PATH=/opt", "A=base"], "Cmd": ["/opt/tool"], "User": "web"}
    saved_images.docker_save(context / "base.tar", [layer], settings)
    return "docker-archive:base.tar"


def test_a_stage_takes_files_from_an_earlier_one_by_name_and_by_number(
    context: pathlib.Path,
) -> None:
    image = build(
        context,
        """\
FROM scratch AS Builder
WORKDIR /out
COPY --chown=7:8 --chmod=0750 a.txt one
COPY b.txt two
FROM scratch
ENV ONLY=here
COPY --from=builder /out /all
COPY --from=0 out/one out/two /picked/
COPY --from=BUILDER --chown=9 /out/t* /glob/
""",
    )
    assert paths(image) == [
        *("all", "all/one", "all/two"),
        *("glob", "glob/two", "picked", "picked/one", "picked/two"),
    ]
    for path in ("all/one", "picked/one"):
        node = image.tree.node(path.encode())
        assert node is not None
        # As it is in the other stage: no owner is set anew.
        assert (node.uid, node.gid, stat.S_IMODE(node.mode)) == (7, 8, 0o750)
    node = image.tree.node(b"glob/two")
    assert node is not None
    assert (node.uid, node.gid) == (9, 9)
    assert image.config.env.keys() == {"PATH", "ONLY"}


def test_a_stage_starts_from_an_earlier_one_and_does_not_change_it(context: pathlib.Path) -> None:
    text = """\
FROM scratch AS common
ENV A=1
COPY a.txt /shared/a
FROM common AS first
ENV A=2
COPY b.txt /shared/a
COPY b.txt /shared/new
FROM common AS second
COPY --from=first /shared /from-first
"""
    image = build(context, text)
    assert image.config.env["A"] == "1"
    assert content(image, "shared/a") == b"a.txt"
    assert content(image, "from-first/a") == b"b.txt"
    assert "shared/new" not in paths(image)
    first = build(context, text, target="first")
    assert (first.config.env["A"], content(first, "shared/a")) == ("2", b"b.txt")
    assert content(build(context, text, target="0"), "shared/a") == b"a.txt"
    with pytest.raises(UsageError, match="no stage 'third'") as got:
        build(context, text, target="third")
    assert got.value.hint == "it has: common, first, second"


def test_the_later_of_two_stages_of_one_name_is_meant_and_that_is_said(
    context: pathlib.Path,
) -> None:
    text = """\
FROM scratch AS same
COPY a.txt /x
FROM scratch AS same
COPY b.txt /x
FROM scratch
COPY --from=same /x /x
"""
    image = build(context, text)
    assert content(image, "x") == b"b.txt"
    assert any(":3: " in text and "(DuplicateStageName)" in text for text in image.warnings)


def test_stages_that_the_target_does_not_need_are_not_run(context: pathlib.Path) -> None:
    text = """\
FROM debian:12 AS test
RUN make check
FROM scratch AS release
COPY a.txt /a
FROM scratch AS debug
COPY --from=test /core /core
"""
    assert paths(build(context, text, target="release")) == ["a"]
    assert needs_container(text, "D", target="release") is None
    with pytest.raises(MalformedImage, match=r"Dockerfile:1: `debian:12` needs a base image"):
        build(context, text)
    assert needs_container(text, "D") == "D:1: FROM debian:12"


def test_a_stage_cannot_take_from_itself_or_a_later_one(context: pathlib.Path) -> None:
    for name in ("one", "0", "two", "1"):
        text = f"FROM scratch AS one\nCOPY --from={name} /a /b\nFROM scratch AS two\n"
        with pytest.raises(MalformedImage, match=f"Dockerfile:2: `{name}` names no stage before"):
            build(context, text, target="one")


def test_from_takes_no_number(context: pathlib.Path) -> None:
    """As Docker: only COPY --from does."""
    text = "FROM scratch AS one\nCOPY a.txt /a\nFROM {}\n"
    assert paths(build(context, text.format("one"))) == ["a"]
    with pytest.raises(MalformedImage, match=r"Dockerfile:3: `0` needs a base image"):
        build(context, text.format("0"))


def test_a_path_that_the_other_stage_lacks_is_named(context: pathlib.Path) -> None:
    text = "FROM scratch AS one\nCOPY a.txt /a\nFROM scratch\nCOPY --from=one {} /x\n"
    assert content(build(context, text.format("/a")), "x") == b"a.txt"
    for path in ("/b", "/b*", "/a/b"):
        with pytest.raises(MalformedImage, match=r"Dockerfile:4: .* is not in the stage `one`"):
            build(context, text.format(path))


def test_links_of_another_stage_are_followed_inside_of_it(context: pathlib.Path) -> None:
    (context / "up").symlink_to("../../../../../a.txt")
    (context / "abs").symlink_to("/a.txt")
    text = """\
FROM scratch AS one
COPY a.txt /a.txt
COPY up abs /links/
FROM scratch
COPY --from=one /links/up /file
COPY --from=one /links /links
"""
    # Named itself, a link is followed; below a folder it is copied as it is.
    (context / "links").mkdir()
    (context / "up").rename(context / "links" / "up")
    (context / "abs").rename(context / "links" / "abs")
    image = build(context, text.replace("COPY up abs /links/", "COPY links /links"))
    assert content(image, "file") == b"a.txt"
    link = image.tree.node(b"links/abs")
    assert isinstance(link, Symlink)
    assert link.target == b"/a.txt"


def test_a_saved_image_is_a_base_with_its_files_and_settings(context: pathlib.Path) -> None:
    image = build(context, f"FROM {base(context)}\nENV B=$A\nCOPY a.txt /opt/\n")
    assert image.config.env == {"PATH": "/opt", "A": "base", "B": "base"}
    assert (image.config.cmd, image.config.user) == (["/opt/tool"], "web")
    tool, same = image.tree.node(b"opt/tool"), image.tree.node(b"opt/same")
    assert tool is same
    assert isinstance(tool, File)
    assert (tool.uid, tool.gid, tool.mode) == (7, 8, 0o4755)
    assert content(image, "opt/a.txt") == b"a.txt"
    (used,) = image.bases
    assert used.startswith(f"{base(context)} sha256:")
    # An ENTRYPOINT takes away the CMD that was the base's.
    image = build(context, f'FROM {base(context)}\nENTRYPOINT ["/opt/tool"]\n')
    assert image.config.argv == ["/opt/tool"]
    image = build(context, f'FROM {base(context)}\nCMD ["-x"]\nENTRYPOINT ["/opt/tool"]\n')
    assert image.config.argv == ["/opt/tool", "-x"]


def test_files_are_taken_from_a_saved_image(context: pathlib.Path) -> None:
    image = build(context, f"FROM scratch\nCOPY --from={base(context)} /opt /copied\n")
    tool, same = image.tree.node(b"copied/tool"), image.tree.node(b"copied/same")
    assert tool is same
    assert isinstance(tool, File)
    # The set-id bit is kept, as is the owner.
    assert (tool.uid, tool.gid, tool.mode) == (7, 8, 0o4755)
    assert image.config.env.keys() == {"PATH"}


def test_a_saved_image_that_is_not_there_is_named_with_its_line(context: pathlib.Path) -> None:
    with pytest.raises(MalformedImage, match=r"Dockerfile:1: .*nothing\.tar"):
        build(context, "FROM docker-archive:nothing.tar\n")
    (context / "no.tar").write_text("no archive")
    with pytest.raises(MalformedImage, match=r"Dockerfile:2: .*no\.tar"):
        build(context, "FROM scratch\nCOPY --from=docker-archive:no.tar /a /b\n")


@pytest.mark.parametrize(
    ("owner", "ids"),
    [
        ("web", (33, 44)),
        ("web:staff", (33, 50)),
        ("web:7", (33, 7)),
        ("5:staff", (5, 50)),
        ("5", (5, 5)),
    ],
)
def test_owners_are_looked_up_in_the_image(
    context: pathlib.Path, owner: str, ids: tuple[int, int]
) -> None:
    """Without a group, a name has that of passwd, and a number itself."""
    image = build(context, f"FROM {base(context)}\nCOPY --chown={owner} a.txt /x\n")
    node = image.tree.node(b"x")
    assert node is not None
    assert (node.uid, node.gid) == ids


def test_an_owner_that_the_image_does_not_know_is_refused(context: pathlib.Path) -> None:
    name = base(context)
    for owner, what in (("nobody", "user 'nobody'"), ("web:wheel", "group 'wheel'")):
        with pytest.raises(MalformedImage, match=f"Dockerfile:2: --chown: there is no {what}"):
            build(context, f"FROM {name}\nCOPY --chown={owner} a.txt /x\n")
    with pytest.raises(MalformedImage, match="expected user or user:group"):
        build(context, f"FROM {name}\nCOPY --chown=:5 a.txt /x\n")


def test_what_a_base_holds_for_those_who_build_on_it_is_run(context: pathlib.Path) -> None:
    held = {"OnBuild": ["COPY a.txt /from-trigger", "ENV T=1", "COPY --from=one /b /from-one"]}
    text = f"FROM scratch AS one\nCOPY b.txt /b\nFROM {base(context, held)}\nENV U=$T\n"
    image = build(context, text)
    assert content(image, "from-trigger") == b"a.txt"
    assert content(image, "from-one") == b"b.txt"
    assert image.config.env["U"] == "1"
    # They are run once: who builds on the result runs none.
    assert image.config.on_build == []
    with pytest.raises(MalformedImage, match=r"Dockerfile:1: ONBUILD of the base image: RUN needs"):
        build(context, f"FROM {base(context, {'OnBuild': ['RUN make']})}\n")


def test_what_a_stage_holds_is_run_by_the_next(context: pathlib.Path) -> None:
    text = """\
FROM scratch AS base
ONBUILD COPY <<end /text
some words
end
ONBUILD ENV A=1
FROM base
"""
    image = build(context, text)
    assert content(image, "text") == b"some words\n"
    assert image.config.env["A"] == "1"
    assert "text" not in paths(build(context, text, target="base"))
    for held in ("ONBUILD ENV A=1", "FROM scratch", "MAINTAINER me", "NONSENSE"):
        with pytest.raises(MalformedImage, match="Dockerfile:2: "):
            build(context, f"FROM scratch\nONBUILD {held}\n")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("FROM scratch\nCOPY a /\n", None),
        ("FROM scratch AS one\nFROM One\nCOPY --chown=1 a /\n", None),
        ("FROM scratch AS one\nFROM scratch\nCOPY --from=one a /\n", None),
        ("FROM docker-archive:base.tar\nCOPY a /\n", None),
        ("FROM oci:folder AS one\nFROM one\n", None),
        ("ARG B=scratch\nFROM $B\n", None),
        ("FROM scratch\nRUN true\n", "D:2: RUN"),
        ("FROM debian\nRUN true\nFROM scratch\nCOPY a /\n", None),
        ("ARG X\nFROM debian:12 AS b\n", "D:2: FROM debian:12"),
        ("FROM scratch\nFROM debian AS b\n", "D:2: FROM debian"),
        ("FROM scratch\nCOPY --from=nginx:1 /a /b\n", "D:2: COPY --from=nginx:1"),
        ("FROM scratch\nADD https://example.com/a /b\n", "D:2: ADD of a remote file"),
        ("FROM scratch\nADD a https /b\n", None),
    ],
)
def test_a_dockerfile_says_whether_it_needs_containers(text: str, reason: str | None) -> None:
    assert needs_container(text, "D") == reason


def test_build_arguments_decide_what_a_dockerfile_needs() -> None:
    text = "ARG BASE=debian\nFROM ${BASE}\n"
    assert needs_container(text, "D") == "D:2: FROM debian"
    assert needs_container(text, "D", build_args={"BASE": "scratch"}) is None


def test_a_dockerfile_that_is_not_understood_is_for_the_others() -> None:
    assert "D:2" in (needs_container("FROM scratch\nFETCH x\n", "D") or "")
    assert "no stage 'x'" in (needs_container("FROM scratch\n", "D", target="x") or "")


def test_a_copied_folder_is_a_folder_of_its_own(context: pathlib.Path) -> None:
    """Two stages never share a folder: what one gets later, the other must not have."""
    text = """\
FROM scratch AS one
COPY a.txt /d/a
FROM scratch AS two
COPY --from=one /d /d
COPY b.txt /d/b
FROM one
COPY --from=two /d/b /copied
"""
    image = build(context, text)
    assert paths(image) == ["copied", "d", "d/a"]
    assert isinstance(image.tree.node(b"d"), Directory)
