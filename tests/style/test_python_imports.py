"""Who may import whom, in Python: the rules of ARCHITECTURE.md, read off the source itself."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[2] / "python" / "cloister"
TOUCH_NATIVE = {"attest", "crypto", "build", "host", "runners", "platform", "testing", "dev"}
CLIENT_MUST_NOT = {"cli", "host", "build", "platform", "dev", "runners", "testing"}


def modules() -> list[pathlib.Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: pathlib.Path) -> set[str]:
    """Every module that a file imports, at the top or inside a function, as a dotted name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def room(path: pathlib.Path) -> str:
    """First part of a path inside the package: ``attest``, ``cli``, ``dev``."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def under(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_the_package_has_modules_to_check() -> None:
    assert len(modules()) > 20


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_rooms_over_rust_touch_the_extension(path: pathlib.Path) -> None:
    touches = any(under(name, "cloister._native") for name in imported(path))
    assert not touches or room(path) in TOUCH_NATIVE


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_typer_is_imported_by_the_command_line_only(path: pathlib.Path) -> None:
    uses = any(under(name, "typer") or under(name, "rich") for name in imported(path))
    assert not uses or room(path) == "cli"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_below_the_command_line_imports_it(path: pathlib.Path) -> None:
    uses = any(under(name, "cloister.cli") for name in imported(path))
    assert not uses or room(path) == "cli" or path == PACKAGE / "__main__.py"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_client_pays_for_nothing_but_the_client(path: pathlib.Path) -> None:
    if room(path) != "client":
        return
    for name in imported(path):
        for other in CLIENT_MUST_NOT:
            assert not under(name, f"cloister.{other}"), f"{path.name} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_pytest_is_imported_by_its_plugin_only(path: pathlib.Path) -> None:
    uses = any(under(name, "pytest") for name in imported(path))
    assert uses == (path == PACKAGE / "pytest_plugin.py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_testing_is_for_tests(path: pathlib.Path) -> None:
    """What plays an enclave is in no path that a program takes."""
    if room(path) not in {"testing", "pytest_plugin"}:
        assert not any(under(name, "cloister.testing") for name in imported(path))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_environment_is_read_in_one_place(path: pathlib.Path) -> None:
    if path == PACKAGE / "cli" / "settings.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("os", "environ"), ("os", "getenv")}


def test_importing_the_package_imports_none_of_its_parts() -> None:
    assert not [name for name in imported(PACKAGE / "__init__.py") if under(name, "cloister")]
