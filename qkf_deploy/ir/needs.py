"""What a step needs of a network, refused in one way: a choice of the wrong file, not a damaged one."""

from __future__ import annotations

from qkf_deploy.errors import UsageError
from qkf_deploy.ir.graph import Graph


def need_integers(graph: Graph, why: str, hint: str = "`qkf-deploy quantize` it first") -> None:
    """Raises UsageError for a float graph; ``why`` says what there is to do with integers only."""
    if graph.arithmetic != "integer":
        raise UsageError(why, hint=hint)


def need_floats(graph: Graph, what: str) -> None:
    """Raises UsageError for an integer graph; ``what`` is to be done with the float graph instead."""
    if graph.arithmetic != "float":
        raise UsageError("the graph is an integer graph already", hint=f"{what} the float graph it came from")
