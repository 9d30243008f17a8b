"""``cloister describe``: what is in an EIF."""

import datetime as dt
import json
import pathlib
import stat
from typing import Annotated, Any

import typer

from cloister.build.describe import describe as describe_image
from cloister.build.describe import verify as verify_image
from cloister.build.eif import open_eif
from cloister.build.explain import Item, contents, difference, registers
from cloister.build.explain import extract as extract_image
from cloister.build.explain.names import spelled
from cloister.cli import output
from cloister.cli._difference_text import difference_text
from cloister.cli.params import without_controls as _safe
from cloister.config.setting import as_size
from cloister.errors import UsageError


def describe(  # noqa: PLR0913 - the options of the command
    eif: Annotated[pathlib.Path, typer.Argument(metavar="EIF", help="The image.")],
    *,
    tree: Annotated[
        bool, typer.Option("--tree", help="List every file of its ramdisks, with its attributes.")
    ] = False,
    extract: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="DIR", help="Write its sections and files below a new folder."),
    ] = None,
    diff: Annotated[
        pathlib.Path | None,
        typer.Option(
            metavar="OTHER",
            help="Say which section, file and attribute differs, and which PCR it touches;"
            " exit status 1 when something does.",
        ),
    ] = None,
    show_all: Annotated[
        bool, typer.Option("--all", help="With --diff: show every file, however many differ.")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Refuse what cannot start: a wrong signature or ramdisk; exit status 65. With"
            " --diff, both images.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Show what is in an EIF, of any maker: sections, PCRs, signature, files, what runs.

    The PCRs are computed from the bytes of the image; its metadata is what its builder said, in no
    PCR and believed by nobody.

    Example:
      cloister describe enclave.eif --verify
      cloister describe enclave.eif --tree
      cloister describe enclave.eif --diff rebuilt.eif
      cloister describe enclave.eif --extract ./inside
    """
    if sum((tree, extract is not None, diff is not None)) > 1:
        raise UsageError("--tree, --extract and --diff: give one of them")
    if show_all and diff is None:
        raise UsageError("--all goes with --diff")
    if verify and (diff is not None or extract is not None or tree):
        for path in filter(None, (eif, diff)):
            with open_eif(path) as image:
                verify_image(image)
    if diff is not None:
        return _difference(eif, diff, is_all=show_all, as_json=as_json)
    if extract is not None:
        return _extracted(eif, extract, as_json=as_json)
    if tree:
        return _tree(eif, as_json=as_json)
    found = describe_image(eif, is_verified=verify)
    _warn_of_dates(found["signature"])
    output.show(found, as_json=as_json, text="" if as_json else _told(found))
    return 0


def _warn_of_dates(signature: dict[str, Any] | None) -> None:
    """A hypervisor looks at the dates when it starts an image; the registers do not."""
    if signature is None or not signature["valid"]:
        return
    now = dt.datetime.now(dt.UTC)
    if dt.datetime.fromisoformat(signature["not_after"]) < now:
        output.warn(f"its certificate ended {signature['not_after']}: no enclave starts from it")
    elif dt.datetime.fromisoformat(signature["not_before"]) > now:
        output.warn(f"its certificate starts {signature['not_before']}: no enclave starts before")


def _tree(eif: pathlib.Path, *, as_json: bool) -> int:
    with open_eif(eif) as image, contents(image) as ramdisks:
        found = {
            "path": str(eif),
            "ramdisks": [
                {
                    "ramdisk": one.number,
                    "compression": one.compression or None,
                    "archives": one.archives,
                    "entries": [item.described() for item in one.items.values()],
                }
                for one in ramdisks
            ],
        }
        lines = []
        for one in ramdisks:
            packed = f", {one.compression}" if one.compression else ""
            lines.append(f"ramdisk {one.number}{packed}: {len(one.items)} entries")
            lines += [_line(item) for item in one.items.values()]
    output.show(found, as_json=as_json, text="\n".join(lines))
    return 0


def _line(item: Item) -> str:
    time = dt.datetime.fromtimestamp(item.mtime, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    size = len(item.data) if item.kind == "file" else 0
    line = (
        f"{stat.filemode(item.mode)} {item.uid:>5}:{item.gid:<5} {size:>10} {time}"
        f" {spelled(item.path)}"
    )
    if item.kind == "link":
        line += f" -> {spelled(bytes(item.data))}"
    if len(item.names) > 1:
        line += f" ({len(item.names)} hard links)"
    return line


def _extracted(eif: pathlib.Path, folder: pathlib.Path, *, as_json: bool) -> int:
    with open_eif(eif) as image:
        left_out = extract_image(image, folder)
    for name in left_out:
        output.warn(f"not made: {name}")
    output.note("owners are in the ramdisk-*.json files; set-id bits are dropped")
    shown_as = {"path": str(eif), "folder": str(folder), "left_out": left_out}
    output.show(shown_as, as_json=as_json, text=_safe(str(folder)))
    return 0


def _difference(first: pathlib.Path, second: pathlib.Path, *, is_all: bool, as_json: bool) -> int:
    with open_eif(first) as one, open_eif(second) as other:
        differing = difference(one, other)
        measured = [registers(image) for image in (one, other)]
    names = sorted(measured[0].keys() | measured[1].keys())
    found = {
        "same": not differing.changes,
        "pcrs_differ": [name for name in names if measured[0].get(name) != measured[1].get(name)],
        "pcrs": measured,
        "packages": [package.described() for package in differing.packages],
        "changes": [change.described() for change in differing.changes],
    }
    text = "" if as_json else difference_text(differing, measured, is_all=is_all)
    output.show(found, as_json=as_json, text=text)
    return 1 if differing.changes else 0


def _told(found: dict[str, Any]) -> str:
    kernel = "" if found["has_kernel"] else ", no kernel: for the sandbox alone"
    lines = [
        f"{_safe(found['path'])}: EIF version {found['version']}, {found['architecture']}{kernel}",
        f"  default memory {as_size(found['default_memory'])}, CPUs {found['default_cpus']}",
        f"  CRC-32 {found['crc']}, right",
        *_kernel_told(found["kernel"]),
        "sections:",
    ]
    lines += [
        f"  {index}  {section['type']:<9}  at {section['offset']:>10}  {section['size']:>10} bytes"
        f"  sha384 {section['sha384'][:16]}…"
        for index, section in enumerate(found["sections"])
    ]
    lines += ["PCRs:"] + [f"  {name} {value}" for name, value in found["pcrs"].items()]
    signature = found["signature"]
    if signature is None:
        lines.append("signature: none")
    elif signature["valid"]:
        lines += [
            "signature: right, ES384",
            f"  subject {_safe(signature['subject'])}",
            f"  valid from {signature['not_before']} to {signature['not_after']}",
            f"  certificate sha256 {signature['sha256']}",
        ]
    else:
        lines.append(f"signature: WRONG: {_safe(signature['problem'])}")
    lines += _runs_told(found["runs"])
    if found["metadata"] is None:
        lines.append("metadata: none")
    else:
        lines += _metadata_told(found["metadata"])
    if found["verified"]:
        lines.append("verified: structure, checksum, ramdisks and signature are right")
    return "\n".join(lines)


def _kernel_told(kernel: dict[str, Any] | None) -> list[str]:
    if kernel is None:
        return []
    version = kernel["version"] or f"of unknown version ({kernel['problem']})"
    lines = [f"  kernel {_safe(version)}, {kernel['size']} bytes"]
    if "cmdline" in kernel:
        lines.append(f"  command line {_safe(kernel['cmdline'])}")
    return lines


def _metadata_told(metadata: dict[str, Any]) -> list[str]:
    text = json.dumps(metadata, indent=2, ensure_ascii=False)
    return [
        "metadata, as its builder said:",
        *(f"  {_safe(line)}" for line in text.splitlines()),
    ]


def _runs_told(runs: dict[str, Any]) -> list[str]:
    process = runs.get("process")
    if not isinstance(process, dict):
        return [f"runs: {_safe(runs.get('problem', 'not said in a way that is known'))}"]
    lines = [f"runs, as its ramdisks say ({runs['layout']}):"]
    argv = json.dumps(process.get("argv"), ensure_ascii=False)
    lines.append(f"  argv {_safe(argv)}")
    lines += [
        f"  {name} {_safe(str(process[name]))}" for name in ("user", "cwd") if process.get(name)
    ]
    env = process.get("env")
    for pair in env if isinstance(env, list) else ():
        told = "=".join(map(str, pair)) if isinstance(pair, list) else str(pair)
        lines.append(f"  env {_safe(told)}")
    settings = runs.get("config")
    if isinstance(settings, dict):
        for name in ("name", "uuid", "debug", "service", "egress", "healthcheck", "trust"):
            if name in settings:
                value = json.dumps(settings[name], ensure_ascii=False)
                lines.append(f"  config {name} {_safe(value)}")
    return lines
