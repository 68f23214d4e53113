"""The rooms import downward only, PyTorch stays in its rooms, and importing the package costs nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "bothways"

# Each room may import itself and the rooms before it.
ORDER = (
    "errors",
    "storage",
    "progress",
    "options",
    "hardware",
    "text",
    "data",
    "metrics",
    "batch",
    "tasks",
    "model",
    "inference",
    "render",
    "training",
    "evaluation",
    "pipelines",
    "jobs",
    "serving",
    "cli",
    "__main__",
)
TORCH_ROOMS = ("model", "training")
TORCH_FILES = {f"inference/engines/{name}.py" for name in ("torch", "fused", "compiled")}
TORCH_FREE = {
    *("model/config.py", "model/families.py", "model/names.py", "model/relative.py", "model/catalogue.py"),
    *("training/recipe.py", "training/teacher.py"),
}


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def at_import_time(tree: ast.Module) -> set[str]:
    body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return imported(ast.Module(body, []))


def test_every_room_has_a_place_in_the_order():
    assert {room(path) for path in modules()} == set(ORDER)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_downward_only(path):
    own = ORDER.index(room(path))
    for name in imported(ast.parse(path.read_text(encoding="utf-8"))):
        if name.startswith("bothways.") and name.count(".") >= 1 and name.split(".")[1] in ORDER:
            other = name.split(".")[1]
            assert ORDER.index(other) <= own, f"{path.name} imports {name}, which stands above it"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_pytorch_stays_in_its_rooms(path):
    where = str(path.relative_to(SOURCE))
    names = at_import_time(ast.parse(path.read_text(encoding="utf-8")))
    if where not in TORCH_FILES and (room(path) not in TORCH_ROOMS or where in TORCH_FREE):
        assert not any(name.split(".")[0] in ("torch", "safetensors") for name in names)


def test_importing_the_package_imports_no_engine_and_not_even_numpy():
    code = "import sys, bothways; print(sorted({'torch', 'numpy', 'tokenizers', 'onnxruntime'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_line_starts_without_numpy():
    code = "import sys, bothways.cli; print(sorted({'torch', 'numpy', 'tokenizers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
