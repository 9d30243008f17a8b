"""Patterns of paths: Go's ``filepath.Match``, and ``**`` for any number of folders.

They come from a Dockerfile or a ``.dockerignore``, which may be somebody else's. So each is turned
into a regular expression that never tries a second way where the first one must do: what a ``*`` or
``**`` in the middle takes is the least that lets the next part match, once and for all (an atomic
group), since whatever comes after may take the rest.
"""

import re


def compiled(pattern: str, *, across: bool = True) -> re.Pattern[str]:
    """A pattern, for ``fullmatch`` with a relative path.

    Args:
        pattern: The pattern.
        across: ``**`` goes across folders, else it is two ``*``.

    Raises:
        ValueError: A ``[`` without its end, an escape at the end, or more than
            :data:`MAX_INSIDE` times ``**`` with other text in the same part.
    """
    parts = pattern.split("/")
    if not across:
        return re.compile("/".join(map(_part, parts)), re.DOTALL)
    if sum("**" in part for part in parts if part != "**") > MAX_INSIDE:
        raise ValueError(f"the pattern {pattern!r} has more than {MAX_INSIDE} `**` inside of names")
    chunks: list[list[str]] = [[]]
    for part in parts:
        if part == "**":
            chunks.append([])
        else:
            chunks[-1].append(_across(part))
    first, *others = ["/".join(chunk) for chunk in chunks]
    if not others:
        return re.compile(first, re.DOTALL)
    *middle, last = others
    result = f"{first}/" if first else ""
    result += "".join(f"(?>(?:[^/]*/)*?{chunk}/)" for chunk in middle if chunk)
    # At the end, `**` stands for everything; before a name, for folders.
    result += f"(?:.*/)?{last}" if last else ".*"
    return re.compile(result, re.DOTALL)


def _across(part: str) -> str:
    """A part that may have ``**`` in it, which then stands for any text."""
    return ".*".join(_part(piece) for piece in re.split(r"\*{2,}", part))


def _part(part: str) -> str:
    """One part of a path: ``*``, ``?``, ``[ ]`` and escapes."""
    pieces = [""]
    at = 0
    while at < len(part):
        char = part[at]
        at += 1
        if char == "*":
            pieces.append("")
        elif char == "?":
            pieces[-1] += "[^/]"
        elif char == "[":
            group, at = _group(part, at)
            pieces[-1] += group
        elif char == "\\":
            if at == len(part):
                raise ValueError(f"the pattern {part!r} ends in a backslash")
            pieces[-1] += re.escape(part[at])
            at += 1
        else:
            pieces[-1] += re.escape(char)
    first, *others = pieces
    if not others:
        return first
    *middle, last = others
    return first + "".join(f"(?>[^/]*?{piece})" for piece in middle if piece) + f"[^/]*{last}"


def _group(part: str, at: int) -> tuple[str, int]:
    negated = part.startswith("^", at)
    at += negated
    items = ""
    while at < len(part) and (part[at] != "]" or not items):
        if part[at] == "\\":
            at += 1
        if at < len(part):
            items += part[at] if part[at] == "-" and items else re.escape(part[at])
            at += 1
    if at >= len(part):
        raise ValueError(f"the pattern {part!r} has a [ without its ]")
    try:
        re.compile(f"[{items}]")
    except re.error:
        raise ValueError(f"the pattern {part!r} has a wrong range in [ ]") from None
    return f"(?!/)[{'^' if negated else ''}{items}]", at + 1


MAX_INSIDE = 2
