"""Writes qkf_deploy/hw_models/components.csv: energies of SRAM, adders, registers and routers by size and node.

    python3.12 -m venv hw; hw/bin/pip install hwcomponents hwcomponents-library hwcomponents-neurosim
    make -C hw/lib/python3.12/site-packages/hwcomponents_cacti/cacti clean opt
    hw/bin/python tools/component_energies.py qkf_deploy/hw_models/components.csv

The library needs Python 3.12. Every row says which call gave it; SRAM comes from CACTI, the rest is scaled by the
library from the node of its source. A test makes the table again with the interpreter of QKF_HWCOMPONENTS_PYTHON.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

COLUMNS = ("component", "node_nm", "bits", "bytes", "action", "energy_pj", "leakage_mw", "area_mm2", "call")
#: CACTI knows 22 nm and larger.
SRAM_NODES, SRAM_KIB = (45, 28, 22), (8, 16, 32, 64, 128, 256, 512, 1024)
LOGIC_NODES = (45, 28, 22, 14)
WORD = 64


def rows() -> Iterator[tuple[Any, ...]]:
    """The table, row by row."""
    from hwcomponents_cacti import SRAM
    from hwcomponents_library.library import aladdin, isaac

    for node in SRAM_NODES:
        for kib in SRAM_KIB:
            arguments = {"width": WORD, "depth": kib * 1024 * 8 // WORD, "size": kib * 1024 * 8}
            for action in ("read", "write"):
                yield _row("sram", SRAM, node, arguments, action, WORD, kib * 1024, {"bits_per_action": WORD})
    for node in LOGIC_NODES:
        for width in (8, 16, 24, 32):
            yield _row("adder", aladdin.AladdinAdder, node, {"width": width}, "add", width, "")
        yield _row("comparator", aladdin.AladdinComparator, node, {"width": 32}, "compare", 32, "")
        yield _row("multiplier", aladdin.AladdinMultiplier, node, {"width": 8}, "multiply", 8, "")
        yield _row("register", aladdin.AladdinRegister, node, {"width": 32}, "read", 32, "")
        yield _row("register", aladdin.AladdinRegister, node, {"width": 32}, "write", 32, "")
        yield _row("router", isaac.IsaacRouter, node, {"width": 32}, "transfer", 32, "")


def _row(
    name: str, kind: Any, node: int, arguments: dict[str, int], action: str, bits: int, size: int | str,
    given: dict[str, int] | None = None,
) -> tuple[Any, ...]:  # fmt: skip
    component = kind(tech_node=node * 1e-9, **arguments)
    energy = getattr(component, action)(**(given or {})).energy
    written = ", ".join([f"tech_node={node}e-9", *(f"{k}={v}" for k, v in arguments.items())])
    call = f"{kind.__name__}({written}).{action}({', '.join(f'{k}={v}' for k, v in (given or {}).items())})"
    numbers = (f"{x:.6g}" for x in (energy * 1e12, component.leak_power * 1e3, component.area * 1e6))
    return name, node, bits, size, action, *numbers, call


def main() -> None:
    """Write the table to the path that is given."""
    out = io.StringIO(newline="")
    names = ("hwcomponents", "hwcomponents-library", "hwcomponents-cacti")
    out.write(f"# tools/component_energies.py with {', '.join(f'{n} {version(n)}' for n in names)}\n")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows())
    Path(sys.argv[1]).write_text(out.getvalue())


if __name__ == "__main__":
    main()
