"""Metrics of several enclaves as one text: each sample gets the label ``enclave``.

What an enclave says is its word. Lines that are not of Prometheus' text format, and names that are
the host's own, are left out, so that no enclave can break a scrape or speak for its host.
"""

import dataclasses
import re
from collections.abc import Iterable

MAX_BYTES = 1 << 20  # of one enclave
_LABEL = r'(?!enclave=)[a-z_]{1,50}="[^"\\\n]{0,200}"'
_SAMPLE = re.compile(
    r"(?P<name>cloister_[a-z0-9_]{1,100})"
    rf"(?:\{{(?P<labels>{_LABEL}(?:,{_LABEL}){{0,9}})\}})?"
    r" (?P<value>[-+]?[0-9][0-9.eE+-]{0,30}|[+-]Inf|NaN)"
)
_HELP = re.compile(r"# HELP (cloister_[a-z0-9_]{1,100}) [ -~]{1,500}")
_TYPE = re.compile(r"# TYPE (cloister_[a-z0-9_]{1,100}) (?:counter|gauge|histogram|untyped)")
_OWN = ("cloister_host_", "cloister_relay_")  # of the host itself


@dataclasses.dataclass(slots=True)
class _Family:
    """One metric, of all enclaves: the format wants its samples together."""

    head: dict[str, str] = dataclasses.field(default_factory=dict)
    samples: list[str] = dataclasses.field(default_factory=list)


def merged(texts: Iterable[tuple[str, bytes]]) -> str:
    """The metrics of all enclaves.

    Args:
        texts: What each said on ``/metrics``, with its uuid.
    """
    families: dict[str, _Family] = {}
    for enclave, text in texts:
        _add(families, enclave, text[:MAX_BYTES].decode("ascii", errors="replace"))
    lines: list[str] = []
    for family in families.values():
        if family.samples:
            lines += [*family.head.values(), *family.samples]
    return "".join(f"{line}\n" for line in lines)


def _add(families: dict[str, _Family], enclave: str, text: str) -> None:
    current: str | None = None
    for line in text.split("\n"):
        for kind, pattern in (("HELP", _HELP), ("TYPE", _TYPE)):
            found = pattern.fullmatch(line)
            if found is not None and not found[1].startswith(_OWN):
                current = found[1]
                families.setdefault(current, _Family()).head.setdefault(kind, line)
        sample = _SAMPLE.fullmatch(line)
        if sample is None or current is None or not _belongs(sample["name"], current):
            continue
        if not _is_number(sample["value"]) or _repeats(sample["labels"] or ""):
            continue
        labels = f'enclave="{enclave}"' + (f",{sample['labels']}" if sample["labels"] else "")
        families[current].samples.append(f"{sample['name']}{{{labels}}} {sample['value']}")


def _belongs(name: str, family: str) -> bool:
    return name == family or name.removeprefix(family) in {"_bucket", "_sum", "_count"}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _repeats(labels: str) -> bool:
    """Whether a label stands there twice."""
    names = re.findall(r'(?:^|,)([a-z_]+)="', labels)
    return len(names) != len(set(names))
