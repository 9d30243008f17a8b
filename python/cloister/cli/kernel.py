"""``cloister kernel``: list, build and fetch the kernels that images are made with."""

import hashlib
import os
import pathlib
from typing import Annotated, Any

import typer

from cloister.build.kernel import BzImage, KernelStore, StoredKernel, facts
from cloister.build.kernel.choose import default_cmdline, runners_of
from cloister.build.kernel.compile import Made, compile_kernel
from cloister.build.kernel.fetch import fetch_kernel
from cloister.build.whole_file import new_file
from cloister.cli import output, params, settings
from cloister.errors import CloisterError

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Output = Annotated[
    pathlib.Path | None,
    typer.Option("--output", metavar="FILE", help="Copy it there, and its .config beside it."),
]
_Again = Annotated[bool, typer.Option("--no-cache", help="Make it again if it is there.")]


def list_kernels(*, as_json: _Json = False) -> None:
    """List the kernels that are there, the newest first, and whom an image with each is for.

    `[kernel] image` in enclave.toml takes a name of this list; `build` and `fetch` mean the newest
    of their kind, `aws` the one that aws-nitro-enclaves-cli installs.

    Example:
      cloister kernel list
    """
    store = KernelStore(settings.load().kernels)
    found = [_described(kernel) for kernel in store.all()]
    if not found:
        output.note("no kernel is there: `cloister kernel build` builds one")
    lines = [line for kernel in found for line in _lines(kernel)]
    output.show({"kernels": found}, as_json=as_json, text="\n".join(lines))


def build(
    *,
    source: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="DIR|TARBALL", help="Take this source of Linux 6.12 instead."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, max=1024, metavar="N", help="Compilers at once; default: a processor each."
        ),
    ] = None,
    result: _Output = None,
    no_cache: _Again = False,
    as_json: _Json = False,
) -> None:
    """Build the kernel of an enclave from Debian's source: for Nitro, QEMU and the sandbox.

    It takes about 8 minutes on two processors and 3 GiB of disk while it lasts. The same source,
    configuration and compiler give the same bytes, and the same PCRs.

    Example:
      cloister kernel build
      cloister kernel build --source linux-6.12.117.tar.xz --output bzImage
    """
    store = KernelStore(settings.load().kernels)
    made = compile_kernel(
        store,
        output.progress(),
        source=source,
        jobs=jobs if jobs is not None else len(os.sched_getaffinity(0)),
        is_cached=not no_cache,
    )
    _show(made, result, as_json=as_json)


def fetch(*, result: _Output = None, no_cache: _Again = False, as_json: _Json = False) -> None:
    """Fetch the kernel of Debian's cloud images: seconds, for QEMU and the sandbox, not for Nitro.

    Its modules for vsock and the NSM go into the image with it; egress does not work with it.

    Example:
      cloister kernel fetch
    """
    store = KernelStore(settings.load().kernels)
    made = fetch_kernel(store, output.progress(), is_cached=not no_cache)
    if result is not None and made.kernel.files().modules:
        output.warn("the copy is the kernel alone: the name brings its modules into an image too")
    _show(made, result, as_json=as_json)


def _show(made: Made, copy: pathlib.Path | None, *, as_json: bool) -> None:
    kernel = made.kernel
    if copy is not None:
        files = kernel.files()
        with new_file(copy) as file:
            file.write(files.image)
        if files.config is not None:
            with new_file(copy.with_name(f"{copy.name}.config")) as file:
                file.write(files.config.encode())
    if not made.is_new:
        output.note("it was there already, made of the same")
    output.note(f'in enclave.toml: [kernel] image = "{kernel.name}"')
    found = _described(kernel) | {"is_new": made.is_new}
    output.show(found, as_json=as_json, text="\n".join(_lines(found)))


def _described(kernel: StoredKernel) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": kernel.name,
        "kind": kernel.kind,
        "path": str(kernel.path),
        "source": kernel.source,
    }
    try:
        files = kernel.files()
        head = BzImage.parse(files.image, kernel.name)
    except CloisterError as problem:
        return found | {"problem": problem.message}
    modules = [module.name for module in files.modules]
    return found | {
        "version": head.version,
        "size": len(files.image),
        "sha384": hashlib.sha384(files.image).hexdigest(),
        "cmdline": files.cmdline or default_cmdline(with_modules=bool(modules)),
        "modules": modules,
        "runners": runners_of(files),
        "options": None if files.config is None else facts.of_interest(facts.read(files.config)),
    }


def _lines(kernel: dict[str, Any]) -> list[str]:
    name = params.without_controls(kernel["name"])
    if "problem" in kernel:
        return [f"{name}: {params.without_controls(kernel['problem'])}"]
    lines = [
        f"{name}: Linux {kernel['version']}, {kernel['size']} bytes",
        f"  for     {', '.join(kernel['runners'])}",
        f"  sha384  {kernel['sha384']}",
        f"  made of {params.without_controls(kernel['source'])}",
        f"  path    {params.without_controls(kernel['path'])}",
    ]
    if kernel["modules"]:
        lines.append(f"  modules {', '.join(kernel['modules'])}")
    if kernel["options"] is None:
        lines.append("  config  not there, so nothing of it is known")
    else:
        said = (f"{option}={value}" for option, value in kernel["options"].items())
        lines.append(f"  config  {' '.join(said)}")
    return lines
