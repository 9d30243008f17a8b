"""The text of a Dockerfile: lines, directives, heredocs, variables, and what is warned of."""

import pathlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.build.built_image import BuiltImage
from cloister.build.dockerfile import Options, run
from cloister.build.dockerfile.expand import expand
from cloister.build.dockerfile.heredoc import one
from cloister.build.dockerfile.parse import parse
from cloister.build.dockerfile.place import Place
from cloister.build.dockerfile.shell_pattern import ShellPattern
from cloister.build.rootfs import File
from cloister.errors import MalformedImage

PLACE = Place("Dockerfile", 1)


@pytest.fixture
def context(tmp_path: pathlib.Path) -> pathlib.Path:
    root = tmp_path / "context"
    root.mkdir()
    (root / "a.txt").write_text("a")
    return root


def build(context: pathlib.Path, text: str) -> BuiltImage:
    file = context.parent / "Dockerfile"
    file.write_bytes(text.encode())
    return run(file, context, Options())


def content(image: BuiltImage, path: str) -> bytes:
    node = image.tree.node(path.encode())
    assert isinstance(node, File)
    return b"".join(node.content.blocks())


def test_a_heredoc_is_a_file(context: pathlib.Path) -> None:
    image = build(
        context,
        """\
FROM scratch
ARG WHO=world
COPY <<EOF /etc/greeting
hello ${WHO} "quoted" \\$WHO

  indented
# no comment here
EOF
COPY <<"EOF" /etc/plain
hello ${WHO} \\$WHO
EOF
COPY --chmod=755 <<-one <<-'two words' a.txt /many/
	tabs	go
	one
		$WHO
	two words
ADD <<end /added
x
end
ENV AFTER=1
""",
    )
    assert content(image, "etc/greeting") == (
        b'hello world "quoted" $WHO\n\n  indented\n# no comment here\n'
    )
    assert content(image, "etc/plain") == b"hello ${WHO} \\$WHO\n"
    assert content(image, "many/one") == b"tabs\tgo\n"
    assert content(image, "many/two words") == b"$WHO\n"
    assert content(image, "many/a.txt") == b"a"
    assert content(image, "added") == b"x\n"
    node = image.tree.node(b"many/one")
    assert node is not None
    assert node.mode == 0o755
    assert image.config.env["AFTER"] == "1"


def test_a_heredoc_keeps_its_line_ends_and_may_be_empty(context: pathlib.Path) -> None:
    image = build(context, "FROM scratch\r\nCOPY <<A <<B /d/\r\nx\r\nA\r\nB\r\n")
    assert content(image, "d/A") == b"x\r\n"
    assert content(image, "d/B") == b""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("COPY <<A <<B /d/\nx\nA\n", ":2: the heredoc 'B' has no end"),
        ("COPY <<A /d\nx\n A\n", ":2: the heredoc 'A' has no end"),
        ("COPY <<'A /d\nx\nA\n", ":2: a ' has no second one"),
        ("COPY <<A\nx\nA\n", ":2: COPY lacks"),
        ("COPY <<A <<B /file\nA\nB\n", ":2: several files are copied to `/file`"),
        ("COPY <<A /d\n${\nA\n", ":2: a `${` is not followed by a name"),
        ("COPY <<.. /d/\nx\n..\n", ":2: "),
        ("COPY <<. /d/\nx\n.\n", ":2: "),
    ],
)
def test_a_heredoc_that_is_wrong_names_its_line(
    context: pathlib.Path, text: str, message: str
) -> None:
    with pytest.raises(MalformedImage) as got:
        build(context, "FROM scratch\n" + text)
    assert message in got.value.message


def test_a_heredoc_s_name_is_that_of_a_file_and_no_path(context: pathlib.Path) -> None:
    image = build(context, "FROM scratch\nCOPY <<../../up /d/\nx\n../../up\n")
    assert content(image, "d/up") == b"x\n"


@pytest.mark.parametrize("word", ["<", "<<", "a<<b", "<<<a", "1<2", "<<-"])
def test_what_is_no_heredoc(word: str) -> None:
    assert one(word, PLACE) is None
    assert one("<<a", PLACE) is not None


def test_a_heredoc_of_run_is_passed_over_to_find_the_next_line(context: pathlib.Path) -> None:
    """The line that is refused is that of RUN, not one of its script."""
    with pytest.raises(MalformedImage, match=r":2: RUN needs a container"):
        build(context, "FROM scratch\nRUN <<EOF\nFROM nothing\nNONSENSE\nEOF\nENV A=1\n")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("ENV A=1 \\\n  B=2", "1"),
        ("ENV A=1 \\   \n B=2", "1"),
        ("ENV A=1 \\\n# comment\n   # another\n B=2", "1"),
        ("ENV A=\\\\\nENV B=2", "\\"),
        ("ENV A=one\\\ntwo B=2", "onetwo"),
        ("env A=1\nEnV B=2", "1"),
        ("   ENV A=1\n\tENV B=2", "1"),
        ("ENV\tA=1\nENV  \t B=2", "1"),
        ("ENV A='# no comment'\nENV B=2", "# no comment"),
        ("ENV A=1\n#ENV A=3\nENV B=2", "1"),
        ("ENV A=1\n\n\n\nENV B=2", "1"),
        ("ENV B=2 A=1 \\", "1"),
    ],
)
def test_lines_that_are_continued_and_comments(
    context: pathlib.Path, text: str, value: str
) -> None:
    env = build(context, f"FROM scratch\n{text}\n").config.env
    assert (env["A"], env["B"]) == (value, "2")


def test_directives_stand_before_everything_else(context: pathlib.Path) -> None:
    escaped = "# escape=`\n# syntax=docker/dockerfile:1\nFROM scratch\nENV A=\\ B=`$X\n"
    assert build(context, escaped).config.env["A"] == "\\"
    # Behind a comment, an empty line or an instruction it is a comment.
    for before in ("# comment\n", "\n", "ARG X\n"):
        text = f"{before}# escape=`\nFROM scratch\nENV A=\\$X\n"
        assert build(context, text).config.env["A"] == "$X"


def test_checks_have_the_names_that_docker_gives_them(context: pathlib.Path) -> None:
    text = """\
FROM scratch AS a
MAINTAINER somebody
ENV A one two
ENV B=1 \\

  C=$nothing
CMD echo
CMD ["/x"]
"""
    found = build(context, text).warnings
    expected = [
        (2, "MaintainerDeprecated"),
        (3, "LegacyKeyValueFormat"),
        (4, "NoEmptyContinuation"),
        (4, "UndefinedVar"),
        (7, "JSONArgsRecommended"),
        (8, "MultipleInstructionsDisallowed"),
    ]
    assert len(found) == len(expected)
    for line, (number, rule) in zip(found, expected, strict=True):
        assert f"Dockerfile:{number}: " in line
        assert line.endswith(f"({rule})")
    skip = "# check=skip=MaintainerDeprecated,legacykeyvalueformat, UndefinedVar\n"
    assert [line.rpartition("(")[2] for line in build(context, skip + text).warnings] == [
        "NoEmptyContinuation)",
        "JSONArgsRecommended)",
        "MultipleInstructionsDisallowed)",
    ]
    assert build(context, "# check=skip=all;error=true\n" + text).warnings == []
    with pytest.raises(MalformedImage, match=r":3: MAINTAINER is deprecated") as got:
        build(context, "# check=error=true\n" + text)
    assert "check=skip=MaintainerDeprecated;error=true" in (got.value.hint or "")
    assert build(context, "# check=error=true\nFROM scratch\nENV A=1\n").warnings == []


def test_a_variable_is_undefined_only_where_nothing_says_what_then(context: pathlib.Path) -> None:
    text = "FROM scratch\nARG DECLARED\nENV A=${X:-1} B=${X+2} C=$DECLARED D='$X' E=$PATH\n"
    assert build(context, text).warnings == []
    assert "`$X` is not set" in build(context, "FROM scratch\nENV A=${X}\n").warnings[0]


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("${V#*/}", "local/lib/x.tar.gz"),
        ("${V##*/}", "x.tar.gz"),
        ("${V%.*}", "usr/local/lib/x.tar"),
        ("${V%%.*}", "usr/local/lib/x"),
        ("${V#nothing}", "usr/local/lib/x.tar.gz"),
        ("${V%nothing}", "usr/local/lib/x.tar.gz"),
        ("${V#usr/?ocal/}", "lib/x.tar.gz"),
        ("${V/l/L}", "usr/Local/lib/x.tar.gz"),
        ("${V//l/L}", "usr/LocaL/Lib/x.tar.gz"),
        ("${V//?ocal\\//}", "usr/lib/x.tar.gz"),
        ("${V/nothing/x}", "usr/local/lib/x.tar.gz"),
        ("${E#x}", ""),
        ("${N:-a b}", "a b"),
        ("${N:-${V##*/}}", "x.tar.gz"),
        ("\"${N:-'x'}\"", "x"),
        ("${E/*/x}", "x"),
    ],
)
def test_parts_of_a_variable(word: str, value: str) -> None:
    values = {"V": "usr/local/lib/x.tar.gz", "E": ""}
    assert expand(word, values, "\\", PLACE) == value


@given(
    value=st.text(alphabet="ab/", max_size=12),
    pattern=st.text(alphabet="ab/*?", max_size=6),
    how=st.sampled_from(["#", "##", "%", "%%"]),
)
def test_what_is_taken_off_is_a_prefix_or_suffix(value: str, pattern: str, how: str) -> None:
    found = expand(f"${{V{how}{pattern}}}", {"V": value}, "\\", PLACE)
    assert value.endswith(found) if how[0] == "#" else value.startswith(found)
    if "*" not in pattern and not pattern.startswith(how[0]):
        assert len(value) - len(found) in (0, len(pattern))


@given(
    value=st.text(alphabet="ab", max_size=8),
    pattern=st.text(alphabet="ab*?", min_size=1, max_size=5),
    everywhere=st.booleans(),
)
def test_what_is_replaced_is_what_a_regular_expression_finds(
    value: str, pattern: str, *, everywhere: bool
) -> None:
    parts = {"*": ".*", "?": "."}
    expression = "".join(parts.get(char, char) for char in pattern)
    expected = re.sub(expression, "-", value, count=0 if everywhere else 1)
    # Python finds nothing once more behind a match that took all; Go and the shell do not.
    if set(pattern) != {"*"} or not value:
        assert ShellPattern(pattern).replaced(value, "-", everywhere=everywhere) == expected


@given(st.text(alphabet="FROMscratchCPYENV=\\\n#\"'[]$-{}<>AB ", max_size=120))
def test_any_text_is_read_or_refused_with_a_line(text: str) -> None:
    problem = None
    try:
        parse("FROM scratch\nCOPY <<A /x\n" + text, "Dockerfile")
    except MalformedImage as caught:
        problem = caught
    assert problem is None or problem.message.startswith("Dockerfile:")


def test_a_pattern_that_could_take_for_ever_does_not() -> None:
    """Patterns come from whoever wrote the Dockerfile, values from whoever builds it."""
    value = "a" * 5000
    assert expand("${V##" + "*a" * 20 + "b}", {"V": value}, "\\", PLACE) == value
    assert expand("${V/" + "*a" * 20 + "b/x}", {"V": value}, "\\", PLACE) == value
