"""Imports point one way, and what is heavy is loaded only by what needs it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest

PACKAGE = Path(__file__).parents[1] / "qkf_deploy"
HEAVY = (
    "torch",
    "onnx",
    "onnxruntime",
    "h5py",
    "nir",
    "numba",
    "dask",
    "distributed",
    "jinja2",
    "sklearn",
    "spikingjelly",
    "lava",
    "pandas",
)
#: Layer -> what it may import of this package. Anything not named here may be imported by nobody below it.
LAYERS = {
    "errors": set(),
    "display": {"errors"},
    "ir": {"errors", "display"},
    "ops": {"errors", "ir"},
    "ledger": {"errors", "display"},
    "passes": {"errors", "display", "ir", "ops", "options"},
    "limits": {"errors"},
    "filekinds": {"errors"},
    "writing": {"errors"},
    "children": set(),
    "bundle": {"errors", "filekinds", "ir", "limits", "ops", "writing"},
    "hw_models": {"errors", "display", "filekinds", "ledger", "limits", "ir", "ops", "writing"},
    "datasets": {"errors", "display", "filekinds", "ir", "limits", "options", "simulators", "writing"},
    "converters": {
        *("errors", "ir", "ops", "options", "passes", "bundle", "writing", "models", "simulators", "evaluation"),
        *("children", "display", "filekinds", "limits"),
    },
    # ONNX Runtime runs the export
    "simulators": {
        "limits",
        "errors",
        "display",
        "ir",
        "ops",
        "ledger",
        "options",
        "passes",
        "bundle",
        "writing",
        "converters",
    },
    "runs": {"errors", "filekinds", "ir", "limits", "ops", "options", "ledger", "bundle", "writing", "simulators"},
    "statistics": {"errors", "display", "ledger", "hw_models", "runs"},
    "report": {
        "errors",
        "display",
        "ledger",
        "hw_models",
        "bundle",
        "options",
        "writing",
        "runs",
        "statistics",
        "limits",
        "filekinds",
    },
    "models": {"errors"},
    "calibration": {
        *(
            "errors",
            "display",
            "ir",
            "keywords",
            "ledger",
            "ops",
            "options",
            "passes",
            "simulators",
            "statistics",
            "training",
        ),
    },
    "training": {"errors", "ir", "keywords", "models", "ops", "options", "passes", "simulators", "writing"},
}


def imported(path: Path) -> set[str]:
    """Dotted names of what a file imports, anywhere in it, imports for type checking left out."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files(layer: str) -> list[Path]:
    single = PACKAGE / f"{layer}.py"
    return [single] if single.exists() else sorted((PACKAGE / layer).rglob("*.py"))


def own(names: set[str]) -> set[str]:
    """First part below the package of each of its own modules."""
    return {n.split(".")[1] for n in names if n.startswith("qkf_deploy.")}


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_one_way(layer: str) -> None:
    assert files(layer)
    wrong = {}
    for path in files(layer):
        beyond = own(imported(path)) - LAYERS[layer] - {layer}
        if beyond:
            wrong[str(path.relative_to(PACKAGE))] = sorted(beyond)
    assert wrong == {}


def modules() -> dict[str, set[str]]:
    """Every module of the package with the modules of the package that it imports anywhere in it."""
    paths = {".".join(("qkf_deploy", *p.relative_to(PACKAGE).with_suffix("").parts)): p for p in PACKAGE.rglob("*.py")}
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}

    def module(name: str) -> str | None:
        return next((n for n in (name, name.rpartition(".")[0]) if n in paths), None)

    return {
        name: {m for n in imported(path) if (m := module(n)) is not None and m != name} for name, path in paths.items()
    }


def test_no_import_cycle() -> None:
    """Imports inside functions count too: a circle of two modules is one module in two files."""
    graph = nx.DiGraph([(a, b) for a, others in modules().items() for b in others])
    assert [c for c in nx.strongly_connected_components(graph) if len(c) > 1] == []


def test_no_module_is_longer_than_a_few_screens() -> None:
    lengths = {str(p.relative_to(PACKAGE)): len(p.read_text().splitlines()) for p in PACKAGE.rglob("*.py")}
    assert {name: n for name, n in lengths.items() if n > 400} == {}


def test_nothing_imports_the_command_line_or_the_api() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        layer = path.relative_to(PACKAGE).parts[0]
        if (
            layer in ("cli", "__init__.py", "__main__.py", "api.py") or "paper" in path.parts
        ):  # the paper check runs whole pipelines
            continue
        assert not {"cli", "api"} & own(imported(path)), path


def test_one_module_loads_pandas() -> None:
    users = [path for path in PACKAGE.rglob("*.py") if "pandas" in {name.split(".")[0] for name in imported(path)}]
    assert users == [PACKAGE / "display" / "frames.py"]


@pytest.mark.parametrize(
    "layer", ["errors", "keywords", "options", "display", "ir", "ops", "ledger", "writing", "bundle", "passes"]
)
def test_the_core_needs_no_framework(layer: str) -> None:
    for path in files(layer):
        heads = {name.split(".")[0] for name in imported(path)}
        foreign = heads - set(sys.stdlib_module_names) - {"qkf_deploy", "numpy", "safetensors", "networkx"}
        if path.name == "frames.py":
            foreign -= {"pandas"}  # inside the function that makes a data frame
        assert not foreign, (path, foreign)


LIGHT = {
    "import": "import qkf_deploy",
    "help": "from qkf_deploy.cli import run; assert run(['--help']) == 0",
    "version": "from qkf_deploy.cli import run; assert run(['--version']) == 0",
}


@pytest.mark.parametrize("code", LIGHT.values(), ids=LIGHT)
def test_nothing_heavy_is_loaded(code: str) -> None:
    script = f"{code}\nimport sys\nprint('LOADED', sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_inspecting_a_file_loads_no_torch(tmp_path: Path, digits_int8) -> None:
    import qkf_deploy as qd

    qd.save(digits_int8, tmp_path / "net.qkf")
    script = (
        "from qkf_deploy.cli import run\nimport sys\n"
        f"assert run(['inspect', {str(tmp_path / 'net.qkf')!r}]) == 0\n"
        f"print('LOADED', sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"
