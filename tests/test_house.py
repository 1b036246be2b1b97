"""The rules of the house that a linter does not know: what imports what, and what a module shows."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import warmstart
import warmstart.vision

ROOT = Path(warmstart.__file__).parent
FOLDERS = sorted(init.parent for init in ROOT.glob("*/__init__.py"))
FILES = [*sorted(ROOT.glob("*.py")), *(file for folder in FOLDERS for file in sorted(folder.rglob("*.py")))]
DOMAINS = {folder.name for folder in FOLDERS} - {"data", "callbacks", "learner"}

# the arrows: what the files of a folder, or a file of the root, may import from the rest of the package
MAY_IMPORT = {
    "data": set(),
    "callbacks": set(),
    "learner": {"data", "callbacks"},
    "notebook": {"data", "callbacks", "learner"},
    **{domain: {"data", "callbacks", "learner", "notebook"} for domain in DOMAINS},
}
HEAVY = ["IPython", "fastprogress", "matplotlib", "onnx", "sklearn", "tensorboard", "timm", "tokenizers",
         "transformers", "wandb"]  # fmt: skip

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(["warmstart", *(part for part in parts if part != "__init__")])


def area(file: Path) -> str:
    """The folder that a file is in, or a root file's own name."""
    return file.relative_to(ROOT).with_suffix("").parts[0]


def relative_imports(file: Path) -> Iterator[tuple[ast.ImportFrom, list[str]]]:
    """Each relative import, and the areas of the package that it reaches."""
    above = file.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = above[: len(above) - node.level + 1]
            target = [*base, *(node.module or "").split(".")] if node.module else [*base]
            yield node, target[:1] or [alias.name for alias in node.names]


def absolute_imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


def public_functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions, and methods of classes, without a leading underscore; constructors too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__init__"):
            yield f"{prefix}{node.name}", node


@each_file
def test_imports_follow_the_arrows(file):
    allowed = MAY_IMPORT.get(area(file), set()) | {area(file), "__version__"}
    reached = {name: f"{file.name}:{node.lineno}" for node, names in relative_imports(file) for name in names}
    wrong = {name: line for name, line in reached.items() if name not in allowed}
    assert not wrong, f"arrows point downwards: {file} may import from {sorted(allowed)}"


@each_file
def test_the_library_imports_itself_relatively_and_stays_inside(file):
    assert "warmstart" not in {name.split(".")[0] for name in absolute_imports(file)}
    depth = len(file.relative_to(ROOT).parent.parts)
    assert all(node.level <= depth + 1 for node, _ in relative_imports(file))


@each_file
def test_a_module_says_what_it_is_for_and_what_it_offers(file):
    module = importlib.import_module(module_name(file))
    assert module.__doc__, "no docstring"
    assert len(module.__all__) == len(set(module.__all__)), "__all__ lists a name twice"
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


@each_file
def test_public_signatures_hide_nothing(file):
    functions = public_functions(ast.parse(file.read_text(encoding="utf-8")))
    assert [name for name, node in functions if node.args.kwarg is not None] == []


@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_star_import_gives_exactly_what_is_listed(domain):
    namespace: dict = {}
    exec(f"from warmstart.{domain} import *", namespace)
    listed = importlib.import_module(f"warmstart.{domain}").__all__
    assert set(namespace) - {"__builtins__"} == set(listed)


def test_importing_vision_leaves_heavy_modules_alone():
    code = f"import sys, warmstart.vision; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_text_leaves_heavy_modules_and_vision_alone():
    unwanted = [*HEAVY, "warmstart.vision"]
    code = f"import sys, warmstart.text; print([name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
