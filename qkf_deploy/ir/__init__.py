"""The graph: values, views, operators, nodes, verification. Standard library and numpy only."""

from qkf_deploy.ir.assumption import Assumption
from qkf_deploy.ir.graph import Graph, GraphBuilder, Node, Operand, Preprocessing, Resize, Widths, freeze
from qkf_deploy.ir.operator import Interval, Operator, Params, StaticCost
from qkf_deploy.ir.values import Kind, Timing, ValueType
from qkf_deploy.ir.view import View, compose, identity

__all__ = [
    "Assumption",
    "Graph",
    "GraphBuilder",
    "Interval",
    "Kind",
    "Node",
    "Operand",
    "Operator",
    "Params",
    "Preprocessing",
    "Resize",
    "StaticCost",
    "Timing",
    "ValueType",
    "View",
    "Widths",
    "compose",
    "freeze",
    "identity",
]
