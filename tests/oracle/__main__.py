"""``cd tests && python -m oracle CASES [FIRST]``: compare that many random networks and print what differs."""

from __future__ import annotations

import logging
import sys
from collections import Counter

from oracle.compare import search

DRAWS = 10


def main(cases: int, first: int = 0) -> int:
    """Returns the number of networks with faults."""
    logging.disable(logging.WARNING)
    total: Counter[str] = Counter()
    for out in search(first, -(-cases // DRAWS), DRAWS):
        total["networks"] += 1
        if total["networks"] % 100 == 0:
            sys.stderr.write(f"{total['networks']} networks\n")
        total["compared with torch"] += not out.close
        total["integer runs equal to the reference"] += len(out.compared)
        total["refused, of all widths"] += len(out.refused)
        if out.faults:
            total["faults"] += 1
            sys.stdout.write("\n  ".join([str(out.case), *out.faults]) + "\n")
            sys.stdout.flush()
    sys.stdout.write("".join(f"{name}: {count}\n" for name, count in total.items()))
    return total["faults"]


if __name__ == "__main__":
    sys.exit(bool(main(*map(int, sys.argv[1:]))))
