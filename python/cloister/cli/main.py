"""Entry point of ``cloister``: global switches, the list of commands, the one place for errors."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.core import TyperGroup

from cloister.cli import output, settings
from cloister.cli._failure import closed_pipe, escape_what_is_lacking, failed, told
from cloister.cli.app import Entry, Group, LazyCommand, group
from cloister.errors import UsageError

_SUMMARY = """Build, run, attest and reach applications in AWS Nitro Enclaves.

Results go to standard output, everything else to standard error. Every command takes --json;
--quiet, --verbose and --no-color may stand anywhere. Exit status: 0 done, 1 a check failed, 2 the
command line is wrong, 64 and above by what went wrong (docs/guide/exit-statuses.md).

\b
Example:
  cloister init hello
  cloister build
  cloister run
"""

_COMMANDS = {
    "init": Entry("cloister.cli.init", "init", "Write enclave.toml, signing pair and app keys."),
    "build": Entry("cloister.cli.build", "build", "Turn a Dockerfile into an enclave image (EIF)."),
    "describe": Entry("cloister.cli.describe", "describe", "Show what is in an EIF."),
    "run": Entry("cloister.cli.run", "run", "Run an enclave on this machine."),
    "dev": Entry("cloister.cli.dev", "dev", "Run the data plane alone, without an enclave."),
    "logs": Entry("cloister.cli.logs", "logs", "Show transaction logs of local runs."),
    "relay": Entry("cloister.cli.relay", "relay", "Move bytes between TCP, Unix and vsock."),
    "doctor": Entry("cloister.cli.doctor", "doctor", "Check whether this machine can do it."),
    "attest": Entry("cloister.cli.attest", "attest", "Attest a running enclave."),
    "encrypt": Entry(
        "cloister.cli.encrypt", "encrypt", "Encrypt a value, JSON or file for an app."
    ),
    "decrypt": Entry("cloister.cli.decrypt", "decrypt", "Decrypt a value, JSON or file."),
}

_GROUPS: dict[str, tuple[str, dict[str, Entry | Group], str]] = {
    "attestation": (
        "Work with saved attestation documents.",
        {
            "verify": Entry("cloister.cli.attestation", "verify", "Verify a saved document."),
            "show": Entry(
                "cloister.cli.attestation", "show", "Decode a document, believing nothing."
            ),
        },
        "cloister attestation show doc.cbor",
    ),
    "cert": (
        "Make and show certificates that sign images.",
        {
            "new": Entry("cloister.cli.cert", "new", "Make a signing pair."),
            "show": Entry("cloister.cli.cert", "show", "Show what a certificate says."),
            "pcr8": Entry("cloister.cli.cert", "pcr8", "Print PCR8 of what it signs."),
        },
        "cloister cert show .cloister/signing/cert.pem",
    ),
    "kernel": (
        "List, build and fetch kernels for images.",
        {
            "list": Entry("cloister.cli.kernel", "list_kernels", "List the kernels there are."),
            "build": Entry("cloister.cli.kernel", "build", "Build one from Debian's source."),
            "fetch": Entry("cloister.cli.kernel", "fetch", "Fetch that of Debian's cloud images."),
        },
        "cloister kernel build",
    ),
    "key": (
        "Make, list and revoke API keys.",
        {
            "create": Entry("cloister.cli.key", "create", "Make an API key; it is shown once."),
            "list": Entry("cloister.cli.key", "list_keys", "List API keys."),
            "revoke": Entry("cloister.cli.key", "revoke", "Revoke an API key."),
        },
        "cloister key create --name ci --scope app --expires 90d",
    ),
    "env": (
        "Set the variables of an enclave's process, secrets among them.",
        {
            "set": Entry("cloister.cli.env", "set_variable", "Set a variable."),
            "get": Entry("cloister.cli.env", "get", "Print a variable that is no secret."),
            "list": Entry("cloister.cli.env", "list_variables", "List the variables."),
            "delete": Entry("cloister.cli.env", "delete", "Delete a variable."),
            "import": Entry("cloister.cli.env", "import_file", "Set all that a .env file has."),
        },
        "cloister env set --secret TOKEN < token.txt",
    ),
    "list": (
        "List enclaves, or deployments of one.",
        {
            "enclaves": Entry("cloister.cli.listing", "enclaves", "List the enclaves of an app."),
            "deployments": Entry("cloister.cli.listing", "deployments", "List its deployments."),
        },
        "cloister list deployments",
    ),
    "host": (
        "Keep enclaves running on this machine, for a platform elsewhere.",
        {
            "init": Entry("cloister.cli.host", "init", "Make a host on this machine."),
            "serve": Entry("cloister.cli.host", "serve", "Run the enclaves of host.toml."),
            "unit": Entry("cloister.cli.host", "unit", "Print a unit for systemd."),
        },
        "cloister host serve --platform-url https://platform.example.com:8800",
    ),
    "platform": (
        "Make and run the owner's server, and manage what is in it.",
        {
            "init": Entry("cloister.cli.platform", "init", "Make a platform on this machine."),
            "serve": Entry("cloister.cli.platform", "serve", "Run the server."),
            "unit": Entry("cloister.cli.platform", "unit", "Print a unit for systemd."),
            "backup": Entry("cloister.cli.platform_store", "backup", "Write a backup."),
            "restore": Entry("cloister.cli.platform_store", "restore", "Restore a backup."),
            "activity": Entry(
                "cloister.cli.platform_history", "activity", "Show what was changed."
            ),
            "releases": Entry(
                "cloister.cli.platform_history", "releases", "Show what an enclave was given."
            ),
            "events": Entry(
                "cloister.cli.platform_history", "events", "Show what was reported of an enclave."
            ),
            "migrate": Entry(
                "cloister.cli.platform_store", "migrate", "Bring the store up to date."
            ),
            "app": Group(
                "Add and list apps, and their keys.",
                {
                    "create": Entry("cloister.cli.platform_apps", "create", "Add an app."),
                    "list": Entry("cloister.cli.platform_apps", "list_apps", "List apps."),
                    "add-key": Entry("cloister.cli.platform_apps", "add_key", "Add a key pair."),
                },
                "cloister platform app create payments",
            ),
            "token": Group(
                "Make, list and revoke tokens of the platform's API.",
                {
                    "create": Entry("cloister.cli.platform_tokens", "create", "Make a token."),
                    "list": Entry("cloister.cli.platform_tokens", "list_tokens", "List tokens."),
                    "revoke": Entry("cloister.cli.platform_tokens", "revoke", "Revoke a token."),
                },
                "cloister platform token create --scope relay:UUID --name host-1",
            ),
            "service-key": Group(
                "List, add and retire the keys that sign bundles.",
                {
                    "list": Entry("cloister.cli.platform_service_keys", "list_keys", "List them."),
                    "add": Entry("cloister.cli.platform_service_keys", "add", "Add the next one."),
                    "retire": Entry("cloister.cli.platform_service_keys", "retire", "Retire one."),
                },
                "cloister platform service-key add",
            ),
            "enclave": Group(
                "Say what an enclave is allowed, or delete it.",
                {
                    "delete": Entry("cloister.cli.platform_enclaves", "delete", "Delete one."),
                    "limit": Entry(
                        "cloister.cli.platform_enclaves", "limit", "How often it may run."
                    ),
                },
                "cloister platform enclave limit 4",
            ),
            "deployment": Group(
                "Register images, and end them.",
                {
                    "create": Entry(
                        "cloister.cli.platform_deployments", "create", "Register an image."
                    ),
                    "end": Entry("cloister.cli.platform_deployments", "end", "End a deployment."),
                },
                "cloister platform deployment create",
            ),
        },
        "cloister platform init",
    ),
}

_SWITCHES = ("--quiet", "--verbose", "--no-color")
_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and ends the process with its exit status."""
    escape_what_is_lacking()
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit status; the only place that catches errors."""
    head, separator, tail = _split(arguments)
    switches = {switch for switch in _SWITCHES if switch in head}
    rest = [word for word in head if word not in switches]
    env = settings.load()
    output.configure(
        output.Style(
            quiet="--quiet" in switches,
            verbose="--verbose" in switches,
            color=not env.no_color and "--no-color" not in switches and sys.stderr.isatty(),
            as_json="--json" in rest,
        )
    )
    words = [*rest, *separator, *tail]
    ended: object
    try:
        if "--version" in words and set(words) <= {"--version", "--json"}:
            ended = _show_version(as_json="--json" in words)
        else:
            ended = _root().main(args=words, prog_name="cloister", standalone_mode=False)
    except typer.TyperException as problem:
        ended = _usage(problem)
    except (typer.Abort, KeyboardInterrupt):
        ended = _INTERRUPTED
    except SystemExit as problem:
        # typer ends the process by itself when a pipe is closed, and after shell completion.
        if not isinstance(problem.__context__, BrokenPipeError):
            raise
        ended = closed_pipe()
    except Exception as problem:  # noqa: BLE001 - whatever it is, it ends as every error does
        ended = failed(problem, is_verbose="--verbose" in switches)
    return ended if isinstance(ended, int) else 0


def _usage(problem: typer.TyperException) -> int:
    """A command line that could not be parsed, told as every other error is."""
    message = getattr(problem, "format_message", lambda: str(problem))()
    context = getattr(problem, "ctx", None)
    if context is not None and not str(message).strip():
        output.note(context.get_help())
        return UsageError.exit_status
    if type(problem).__name__ == "NoArgsIsHelpError":
        output.note(str(message))
        return UsageError.exit_status
    path = context.command_path if context is not None else "cloister"
    text = str(message).rstrip(".")
    return told(
        UsageError(text[:1].lower() + text[1:], hint=f"`{path} --help` shows how it is called")
    )


def _split(arguments: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Cuts at ``--``: what stands behind it belongs to the command alone."""
    if "--" not in arguments:
        return arguments, [], []
    at = arguments.index("--")
    return arguments[:at], ["--"], arguments[at + 1 :]


def _root() -> TyperGroup:
    root = typer.main.get_command(_shell())
    if not isinstance(root, TyperGroup):
        raise TypeError("the root command is a group")
    for name, entry in _COMMANDS.items():
        root.add_command(LazyCommand(name, entry))
    for name, (summary, entries, example) in _GROUPS.items():
        root.add_command(group(name, summary, entries, example=example))
    return root


def _shell() -> typer.Typer:
    app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help=_SUMMARY)

    @app.callback()
    def root(
        *,
        version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
    ) -> None:
        """Lists the option that stands without a command; it never comes this far."""

    return app


def _show_version(*, as_json: bool) -> int:
    from importlib import metadata  # noqa: PLC0415 - 20 ms that other commands need not pay

    version = metadata.version("cloister")
    output.show({"version": version}, as_json=as_json, text=f"cloister {version}")
    return 0


if __name__ == "__main__":
    main()
