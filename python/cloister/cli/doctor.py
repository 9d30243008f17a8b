"""``cloister doctor``: can this machine do the work, and if not, what to do."""

import enum
import pathlib
from typing import Annotated, Any

import typer

from cloister import config as configuration
from cloister.build import memory_needed, open_eif
from cloister.build.eif import Kind
from cloister.build.kernel import KernelStore, choose_kernel
from cloister.cli import output, params, settings
from cloister.doctor import Finding, Needs, State, can_work, examine, read_machine
from cloister.errors import CloisterError


class Runner(enum.StrEnum):
    """Where enclaves are to run."""

    SANDBOX = "sandbox"
    NITRO = "nitro"


def doctor(
    eif: Annotated[
        pathlib.Path | None,
        typer.Argument(metavar="[EIF]", help="Image to find room for; default: enclave.eif."),
    ] = None,
    *,
    config: Annotated[
        pathlib.Path, typer.Option("--config", metavar="FILE", help="The enclave.toml.")
    ] = pathlib.Path("enclave.toml"),
    runner: Annotated[Runner, typer.Option(help="Where enclaves are to run.")] = Runner.SANDBOX,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where `cloister run` is to listen.")
    ] = "127.0.0.1:8443",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Check whether this machine can build and run enclaves, and say what to do where it cannot.

    Nothing is changed. Exit status 1 when the main job (build an image, run it) could not be done.

    Example:
      cloister doctor
      cloister doctor enclave.eif --runner nitro --json
    """
    needs = _needs(eif, config, runner, params.listen_address(listen))
    findings = examine(read_machine(needs), needs)
    is_able = can_work(findings)
    found = {
        "can_work": is_able,
        "checks": [
            {
                "id": finding.id,
                "state": finding.state.value,
                "found": finding.found,
                "fix": finding.fix,
            }
            for finding in findings
        ],
    }
    output.show(found, as_json=as_json, text="\n".join(_lines(findings)))
    return 0 if is_able else 1


def _needs(eif: pathlib.Path | None, config: pathlib.Path, runner: Runner, listen: str) -> Needs:
    memory, reason, connections = 256 << 20, "a small enclave", 10_000
    granted, cpus, dockerfile, dockerfile_name = None, 2, None, ""
    settings_problem = image_problem = None
    kernel: dict[str, Any] = {}
    folder = config.parent
    if config.exists():
        try:
            toml = configuration.load(config)
        except CloisterError as problem:
            settings_problem = problem.message
        else:
            memory, reason = toml.resources.memory, "`[resources] memory`"
            connections = toml.acceptor.max_concurrent_connections
            granted, cpus = toml.resources.memory, toml.resources.cpus
            dockerfile_name, dockerfile = toml.dockerfile, toml.beside(toml.dockerfile)
            kernel = _kernel(toml)
    image = eif or folder / "enclave.eif"
    if eif is not None or image.is_file():
        try:
            with open_eif(image) as opened:
                boot = [opened.one(Kind.KERNEL), opened.one(Kind.CMDLINE)]
                needed = memory_needed(
                    sum(section.size for section in opened.ramdisks),
                    kernel=sum(section.size for section in boot if section is not None),
                )
        except CloisterError as problem:
            # One that was named is what the question is about.
            if eif is not None:
                raise
            image_problem = problem.message
        else:
            if needed > memory or eif is not None:
                memory, reason = needed, f"`{image}`"
    return Needs(
        runner=runner.value,
        memory_bytes=memory,
        memory_reason=reason,
        granted_bytes=granted,
        cpus=cpus,
        dockerfile=dockerfile,
        dockerfile_name=dockerfile_name,
        settings_problem=settings_problem,
        image_problem=image_problem,
        connections=connections,
        listen=listen,
        folder=folder,
        home=settings.load().home,
        **kernel,
    )


def _kernel(toml: configuration.EnclaveToml) -> dict[str, Any]:
    """What ``[kernel]`` comes to, as fields of the needs."""
    try:
        chosen = choose_kernel(toml, KernelStore(settings.load().kernels))
    except CloisterError as problem:
        hint = problem.hint or "see `cloister kernel list`"
        return {"kernel_problem": (f"[kernel]: {problem.message}", hint)}
    if chosen is None:
        return {}
    runners = ", ".join(chosen.runners)
    return {
        "kernel": f"Linux {chosen.version} ({chosen.name}), for {runners}",
        "kernel_warnings": chosen.warnings,
    }


def _lines(findings: list[Finding]) -> list[str]:
    lines = []
    for finding in findings:
        lines.append(f"{finding.state.value:<5} {finding.id:<16} {finding.found}")
        if finding.fix is not None:
            lines.append(f"{'':<23}fix: {finding.fix}")
    failed = [finding.id for finding in findings if finding.state is State.FAIL]
    lines.append(
        f"the main job cannot be done here: {', '.join(failed)}"
        if failed
        else "this machine can build and run enclaves"
    )
    return lines
