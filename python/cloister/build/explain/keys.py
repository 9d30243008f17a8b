"""Where two JSON documents differ, key by key."""

import json
from collections.abc import Iterator
from typing import Any

from cloister.build.explain.change import Change


def changed_keys(
    section: str, path: str, first: dict[str, str], second: dict[str, str], pcrs: tuple[str, ...]
) -> Iterator[Change]:
    """Changes of every key.

    Args:
        section: Where the documents are.
        path: Their file; empty: they are the section.
        first: The first, flat.
        second: The second, flat.
        pcrs: Registers that they are in.
    """
    for name in sorted(first.keys() | second.keys()):
        if first.get(name) != second.get(name):
            yield Change(
                section=section,
                path=path,
                what=f"`{name}`",
                first=first.get(name),
                second=second.get(name),
                pcrs=pcrs,
            )


def flat(value: Any, at: str = "") -> dict[str, str]:  # noqa: ANN401 - any JSON
    """A JSON value as one text for each leaf, by its path; pairs of a list are by their names."""
    if _is_pairs(value):
        value = dict(value)
    if isinstance(value, dict) and (value or not at):
        found: dict[str, str] = {}
        for key, inner in value.items():
            found |= flat(inner, f"{at}.{key}" if at else str(key))
        return found
    return {at or "(whole)": json.dumps(value, ensure_ascii=False, sort_keys=True)}


def _is_pairs(value: Any) -> bool:  # noqa: ANN401 - any JSON
    """Whether it is a list of names, each once, and values, as an environment is."""
    if not isinstance(value, list) or not value:
        return False
    are_pairs = all(
        isinstance(pair, list) and [type(part) for part in pair] == [str, str] for pair in value
    )
    return are_pairs and len({pair[0] for pair in value}) == len(value)
