"""What is counted in results and notices agrees with its number: `1 epoch`, never `1 epochs`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import qkf_deploy
from qkf_deploy.display.numbers import quantity

PACKAGE = Path(qkf_deploy.__file__).parent
NOUNS = "epoch|image|sample|frame|run|variant|network|row|node|channel|core|point|neuron|step|stand-in|part|layer"
COUNTED = re.compile(rf"^ (?:time |neuron |stock |marked |more )?(?:{NOUNS})s\b(?!/)")
#: Files that count what is never 1: limits that are passed, sizes that are fixed, or 1 is said in other words.
NEVER_ONE = {
    "converters/nir/dialects.py", "converters/nir/read.py", "converters/torch/trace/lowering.py",
    "converters/torch/trace/rules/chunks.py", "converters/torch/trace/spikingjelly.py", "doctor.py",
    "hw_models/core_limits.py", "hw_models/energy_table.py", "hw_models/hardware.py", "hw_models/mapping.py",
    "hw_models/whole_layers.py",
    "passes/audit.py", "passes/decay.py", "pipeline/finetuning.py", "report/charts.py", "report/rate_sheet.py",
    "runs/packing.py", "simulators/inputs.py", "simulators/run.py", "statistics/measures.py",
}  # fmt: skip


def counted(path: Path) -> Iterator[str]:
    """Texts of f-strings that count something with a plural, but for those of errors (they speak of limits)."""
    tree = ast.parse(path.read_text())
    raised = {id(part) for node in ast.walk(tree) if isinstance(node, ast.Raise) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.JoinedStr) or id(node) in raised:
            continue
        for number, text in zip(node.values, node.values[1:], strict=False):
            behind = str(text.value) if isinstance(text, ast.Constant) else ""
            if isinstance(number, ast.FormattedValue) and COUNTED.match(behind):
                yield behind


def test_quantity() -> None:
    assert [quantity(n, "epoch") for n in (0, 1, 2, 1000)] == ["0 epochs", "1 epoch", "2 epochs", "1,000 epochs"]


def test_counts_are_written_by_quantity() -> None:
    found = {str(path.relative_to(PACKAGE)): list(counted(path)) for path in sorted(PACKAGE.rglob("*.py"))}
    assert {path: texts for path, texts in found.items() if texts and path not in NEVER_ONE} == {}
