"""The shape of a value: what is a container, what is a leaf, and how a result has the same shape.

The rules are those of the internal API in the enclave: containers are walked, keys and ``None``
stay, and nothing is deeper than :data:`MAX_DEPTH`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cloister.errors import InputError

MAX_DEPTH = 128
"""Most containers inside each other, empty ones too; the same in the enclave."""


def leaves(value: Any, *, depth: int = 0) -> Iterator[Any]:  # noqa: ANN401 - any value
    """Every leaf but ``None``, in the order in which :func:`rebuilt` asks for them.

    Raises:
        InputError: The value is nested deeper than :data:`MAX_DEPTH`, or a key is not text.
    """
    if depth >= MAX_DEPTH and isinstance(value, (Mapping, list, tuple)):
        raise InputError(f"the value is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise InputError(f"a key is of type {type(key).__name__}, expected text")
            yield from leaves(inner, depth=depth + 1)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from leaves(inner, depth=depth + 1)
    elif value is not None:
        yield value


def rebuilt(value: Any, leaf: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - the same shape
    """The same shape, with each leaf but ``None`` replaced."""
    if isinstance(value, Mapping):
        return {key: rebuilt(inner, leaf) for key, inner in value.items()}
    if isinstance(value, list):
        return [rebuilt(inner, leaf) for inner in value]
    if isinstance(value, tuple):
        made = tuple(rebuilt(inner, leaf) for inner in value)
        # A named tuple is made from its fields.
        return value._make(made) if hasattr(value, "_make") else made
    return None if value is None else leaf(value)
