"""The verifier builds without C: what a browser or another language's library is built of.

``examples/portable-verifier`` is the crate without its default backend. cargo says what it is made
of; ``make test`` builds it by itself and asks it about every case of the conformance suite.
"""

import pathlib
import subprocess
import tomllib

ROOT = pathlib.Path(__file__).parents[2]


def tree(package: str, *options: str) -> set[str]:
    """Names of all crates below ``package``, those that build it included."""
    command = ["cargo", "tree", "--locked", "--offline", "--prefix", "none", "--format", "{p}"]
    done = subprocess.run(
        [*command, "--edges", "normal,build", "--package", package, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {line.split()[0] for line in done.stdout.splitlines() if line}


def builds_c(crates: set[str]) -> set[str]:
    return {name for name in crates if name.endswith("-sys") or name in {"cc", "cmake"}}


def test_the_portable_verifier_has_no_c_below_it() -> None:
    below = tree("portable-verifier")
    assert {"cloister-attestation", "p384"} <= below
    assert not builds_c(below)
    # With its default backend it has, so this looks at the right thing.
    assert "aws-lc-sys" in builds_c(tree("cloister-attestation"))


def test_it_is_built_by_itself() -> None:
    """In one build with the workspace cargo unites features, and it gets the backend with C."""
    lines = (ROOT / "Makefile").read_text().splitlines()
    tests = [line.split() for line in lines if line.startswith("\tcargo test ")]
    alone = [line for line in tests if line[-2:] == ["--package", "portable-verifier"]]
    together = [line for line in tests if {"--workspace", "--all-targets"} <= set(line)]
    assert len(alone) == len(together) == 1
    assert "--exclude portable-verifier" in " ".join(together[0])


def test_for_a_browser_it_needs_neither_c_nor_an_operating_system() -> None:
    """What a target needs is known where the target itself is not installed as well."""
    below = tree("portable-verifier", "--target", "wasm32-unknown-unknown")
    assert {"cloister-attestation", "p384"} <= below
    assert not builds_c(below)
    assert not below & {"getrandom", "libc", "rustix"}


def test_without_its_backend_the_verifier_depends_on_error_messages_alone() -> None:
    manifest = tomllib.loads((ROOT / "rust" / "attestation" / "Cargo.toml").read_text())
    always = {
        name
        for name, how in manifest["dependencies"].items()
        if not (isinstance(how, dict) and how.get("optional"))
    }
    assert always == {"thiserror"}
    assert manifest["features"]["default"] == ["aws-lc"]
    assert not builds_c(tree("cloister-attestation", "--no-default-features"))
