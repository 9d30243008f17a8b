"""Who may depend on whom, in Rust: pure ← io ← planes ← face, read off the manifests."""

import pathlib
import tomllib

import pytest

RUST = pathlib.Path(__file__).parents[2] / "rust"
TIERS = {
    "wire": 0,
    "http": 0,
    "sealing": 0,
    "attestation": 0,
    "ciphertext": 0,
    "transport": 1,
    "nsm": 1,
    "nsm-sim": 1,
    "dataplane": 2,
    "init": 2,
    "sandbox": 2,
    "hostplane": 2,
    "devplane": 2,
    "native": 3,
}
ASYNC_OR_IO = {"tokio", "tokio-rustls", "hyper", "hyper-util", "rustix", "socket2", "fs-err"}


def dependencies(crate: str, table: str = "dependencies") -> set[str]:
    manifest = tomllib.loads((RUST / crate / "Cargo.toml").read_text())
    return set(manifest.get(table, {}))


def crates() -> list[str]:
    return sorted(path.parent.name for path in RUST.glob("*/Cargo.toml"))


def test_every_crate_has_a_tier_and_every_tier_a_crate() -> None:
    assert set(crates()) == set(TIERS)


@pytest.mark.parametrize("crate", crates())
def test_a_crate_depends_on_its_own_tier_or_lower(crate: str) -> None:
    for name in dependencies(crate):
        if not name.startswith("cloister-"):
            continue
        other = name.removeprefix("cloister-")
        assert TIERS[other] <= TIERS[crate], f"{crate} depends on {other}"


def test_the_two_planes_meet_only_in_messages() -> None:
    """The host and the enclave are two sides of a trust boundary."""
    assert not dependencies("hostplane") & {
        "cloister-dataplane",
        "cloister-init",
        "cloister-ciphertext",
        "cloister-attestation",
        "cloister-nsm",
    }
    assert "cloister-hostplane" not in dependencies("dataplane") | dependencies("init")


@pytest.mark.parametrize("crate", [name for name, tier in TIERS.items() if tier == 0])
def test_a_pure_crate_forbids_unsafe_code_and_takes_no_runtime(crate: str) -> None:
    assert "#![forbid(unsafe_code)]" in (RUST / crate / "src" / "lib.rs").read_text()
    assert not dependencies(crate) & ASYNC_OR_IO


@pytest.mark.parametrize("crate", ["init", "dataplane"])
def test_the_enclave_binary_does_not_link_the_simulated_nsm(crate: str) -> None:
    """A simulated NSM inside the enclave could sign what the enclave likes."""
    seen: set[str] = set()
    queue = [crate]
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        seen.add(name)
        queue.extend(
            d.removeprefix("cloister-") for d in dependencies(name) if d.startswith("cloister-")
        )
    assert "nsm" in seen
    assert "nsm-sim" not in seen


def test_only_the_face_knows_python() -> None:
    assert [crate for crate in crates() if "pyo3" in dependencies(crate)] == ["native"]
