"""A difference between two images as people read it: what changed, and last what follows from it.

The end of a long text is what stays in sight, so the answer is there: the packages, then the
registers and why. Of many files the first are shown, unless all are asked for; a folder that came
or went is one line.
"""

import datetime as dt
import itertools
import re
from collections.abc import Iterable, Iterator

from cloister.build.explain import Change, Difference, PackageChange
from cloister.cli.params import without_controls


def difference_text(found: Difference, pcrs: list[dict[str, str]], *, is_all: bool) -> str:
    """The text.

    Args:
        found: What differs.
        pcrs: The registers of the first image and of the second.
        is_all: Show every file, however many there are.
    """
    if not found.changes:
        return "the same: every section and every file"
    lines: list[str] = []
    left = None if is_all else MAX_FILES
    for _, in_section in itertools.groupby(found.changes, key=lambda change: change.section):
        changes = list(in_section)
        lines.append(_section(changes))
        files = list(_entries(changes, is_all=is_all))
        lines += [f"  {line}" for entry in files[:left] for line in entry]
        if left is not None and len(files) > left:
            lines.append(f"  … and {len(files) - left} more: --all shows them, --json has them")
        left = None if left is None else max(0, left - len(files))
        lines.append("")
    if found.packages:
        lines += ["packages", *_packages(found.packages, is_all=is_all), ""]
    lines += _verdict(found.changes, pcrs)
    return "\n".join(lines)


def _section(changes: list[Change]) -> str:
    touched = sorted({name for change in changes for name in change.pcrs})
    return f"{changes[0].section} (in {_joined(touched) or 'no PCR'})"


def _entries(changes: list[Change], *, is_all: bool) -> Iterator[list[str]]:
    """Lines of each file, or of a section's own attributes."""
    grouped = [list(group) for _, group in itertools.groupby(changes, key=lambda one: one.path)]
    below: dict[str, int] = {}
    tops: list[list[Change]] = []
    for group in grouped:
        change, top = group[0], tops[-1][0] if tops else None
        if (
            not is_all
            and top is not None
            and change.what == top.what in ("added", "removed")
            and change.path.startswith(f"{top.path}/")
        ):
            below[top.path] = below.get(top.path, 0) + 1
        else:
            tops.append(group)
    for group in tops:
        yield _entry(group, below.get(group[0].path, 0))


def _entry(changes: list[Change], below: int) -> list[str]:
    path = changes[0].path
    if changes[0].what in ("added", "removed"):
        sign, (change, *_) = ("+" if changes[0].what == "added" else "-"), changes
        told = _short((change.first if change.second is None else change.second) or "")
        more = f", {below} more in it" if below else ""
        return [f"{sign} {path or change.what}  ({told}{more})"]
    lines = [f"* {path}"] if path else []
    indent = "    " if path else ""
    for change in changes:
        lines += [f"{indent}{line}" for line in _attribute(change)]
    return lines


def _attribute(change: Change) -> list[str]:
    what = without_controls(change.what)
    values = [_value(change, value) for value in (change.first, change.second)]
    if all(value is not None and len(value) <= MAX_INLINE for value in values):
        lines = [f"{what}: {values[0]} → {values[1]}"]
    else:
        lines = [what]
        lines += [
            f"  {sign} {value}"
            for sign, value in zip("-+", values, strict=True)
            if value is not None
        ]
    if change.note:
        lines.append(f"  {without_controls(change.note)}")
    return lines


def _value(change: Change, value: str | None) -> str | None:
    if value is not None and change.path and change.what == "time":
        moment = dt.datetime.fromtimestamp(int(value), tz=dt.UTC)
        return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
    return None if value is None else _short(without_controls(value))


def _short(text: str) -> str:
    """A digest by its first digits: the whole of it is in the JSON."""
    return re.sub(r"\b([0-9a-f]{16})[0-9a-f]{32,}", r"\1…", text)


def _packages(packages: Iterable[PackageChange], *, is_all: bool) -> Iterator[str]:
    found = list(packages)
    for one in found if is_all else found[:MAX_FILES]:
        if one.first is None:
            versions = f"{one.second} came"
        elif one.second is None:
            versions = f"{one.first} went"
        else:
            versions = f"{one.first} → {one.second}"
        yield without_controls(f"  {one.manager} {one.name}: {versions}  ({one.folder})")
    if not is_all and len(found) > MAX_FILES:
        yield f"  … and {len(found) - MAX_FILES} more: --all shows them, --json has them"


def _verdict(changes: list[Change], pcrs: list[dict[str, str]]) -> Iterator[str]:
    """Which registers differ and why; and which do not."""
    names = sorted(pcrs[0].keys() | pcrs[1].keys())
    differing = [name for name in names if pcrs[0].get(name) != pcrs[1].get(name)]
    if not differing:
        yield "no PCR differs: a client that pins them takes either image"
        return
    by_causes: dict[str, list[str]] = {}
    for name in differing:
        causes = _causes([change for change in changes if name in change.pcrs])
        by_causes.setdefault(causes, []).append(name)
    for causes, of in by_causes.items():
        yield f"{_joined(of)} {'differs' if len(of) == 1 else 'differ'} because of {causes}"
    same = [name for name in names if name not in differing]
    if same:
        yield f"{_joined(same)} {'is' if len(same) == 1 else 'are'} the same"


def _causes(changes: list[Change]) -> str:
    """What of the image: ``the kernel, 3 files of ramdisk 1 (1 changed, 2 added)``."""
    told = []
    for section, group in itertools.groupby(changes, key=lambda change: change.section):
        kinds: dict[str, str] = {}
        for change in group:
            what = change.what if change.what in ("added", "removed") else "changed"
            kinds[change.path] = what
        if set(kinds) == {""}:
            told.append(f"{_SPOKEN.get(section, section)} ({kinds['']})")
            continue
        word = "file" if len(kinds) == 1 else "files"
        counts = ", ".join(
            f"{count} {what}"
            for what in ("changed", "added", "removed")
            if (count := list(kinds.values()).count(what))
        )
        told.append(f"{len(kinds)} {word} of {section} ({counts})")
    return "; ".join(told)


def _joined(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


_SPOKEN = {
    "kernel": "the kernel",
    "cmdline": "the command line",
    "signature": "the signing certificate",
}
MAX_FILES = 40
MAX_INLINE = 40
