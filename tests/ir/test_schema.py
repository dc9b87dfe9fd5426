"""Attributes and parameters are of their declared types, on construction and so in every reader."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from qkf_deploy.errors import GraphError
from qkf_deploy.ir import GraphBuilder, Operator, View
from qkf_deploy.ir.values import Kind, Timing, ValueType
from qkf_deploy.ops import OPERATORS, Conv, Input, IntegerNeuron, MaxPool, Neuron, Output, Scale, Shift, Sum

NAN, INF = float("nan"), float("inf")
WRONG = {
    "stride 2.0": lambda: Conv((2.0, 1), (0, 0), (1, 1)),  # type: ignore[arg-type]
    "stride text": lambda: Conv("11", (0, 0), (1, 1)),  # type: ignore[arg-type]
    "stride number": lambda: Conv(1, (0, 0), (1, 1)),  # type: ignore[arg-type]
    "groups true": lambda: Conv((1, 1), (0, 0), (1, 1), groups=True),
    "groups beyond int64": lambda: Conv((1, 1), (0, 0), (1, 1), groups=2**64),
    "bits none of a number": lambda: Conv((1, 1), (0, 0), (1, 1), weight_bits="8"),  # type: ignore[arg-type]
    "keepdims text": lambda: Sum((0,), keepdims="x"),  # type: ignore[arg-type]
    "keepdims 1": lambda: Sum((0,), keepdims=1),  # type: ignore[arg-type]
    "role": lambda: Sum((0,), role="head"),  # type: ignore[arg-type]
    "scale nan": lambda: Scale(NAN),
    "scale infinite": lambda: Scale(INF),
    "scale true": lambda: Scale(True),
    "tau nan": lambda: Neuron(NAN, 1.0, 0.0),
    "threshold text": lambda: Neuron(2.0, "1", 0.0),  # type: ignore[arg-type]
    "carry": lambda: Neuron(2.0, 1.0, 0.0, carry="x"),  # type: ignore[arg-type]
    "reset infinite": lambda: Neuron(2.0, 1.0, -INF),
    "multiplier 1.0": lambda: IntegerNeuron(1.0, 0),  # type: ignore[arg-type]
    "soft reset 0": lambda: IntegerNeuron(1, 0, soft_reset=0),  # type: ignore[arg-type]
    "shift none": lambda: Shift((None,)),  # type: ignore[arg-type]
    "kernel nested": lambda: MaxPool(((2,), 2), (2, 2), (0, 0)),  # type: ignore[arg-type]
    "input format": lambda: Input((1,), "pixels"),  # type: ignore[arg-type]
    "type shape": lambda: ValueType((1.0,), Kind.DRIVE),  # type: ignore[arg-type]
    "type empty": lambda: ValueType((0, 3), Kind.DRIVE),
    "type kind": lambda: ValueType((1,), "drive"),  # type: ignore[arg-type]
    "type high": lambda: ValueType((1,), Kind.COUNT, Timing.STEP, 2**62, 0),
    "view split": lambda: View((2.0,), ((0, 2),), (0,), (2,)),  # type: ignore[arg-type]
    "view take": lambda: View((2,), ((0, 2, 3),), (0,), (2,)),  # type: ignore[arg-type]
    "view negative": lambda: View((4,), ((0, 4),), (0,), (-2, -2)),
}


@pytest.mark.parametrize("make", WRONG.values(), ids=WRONG)
def test_refused(make: Any) -> None:
    with pytest.raises(GraphError):
        make()


def test_numpy_numbers_and_lists_become_python_ones() -> None:
    op = Conv([np.int64(1), np.int32(2)], (0, 0), (1, 1), weight_bits=np.uint8(8))  # type: ignore[arg-type]
    assert op == Conv((1, 2), (0, 0), (1, 1), weight_bits=8)
    assert [type(v) for v in (*op.stride, op.weight_bits)] == [int] * 3
    neuron = Neuron(2, np.float32(1.5), None)  # type: ignore[arg-type]
    assert (neuron.tau, neuron.v_threshold) == (2.0, 1.5)
    assert type(neuron.tau) is type(neuron.v_threshold) is float


@pytest.mark.parametrize("kind", OPERATORS)
def test_every_attribute_of_every_operator_has_a_type(kind: str) -> None:
    """An object that is of no declared type is refused for each field."""
    cls = OPERATORS[kind]
    names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    op = object.__new__(cls)
    if names:
        with pytest.raises(GraphError, match=names[0]):
            _set(op, dict.fromkeys(names, object()))
    right = {name: _some(get_type_hints(cls)[name]) for name in names}
    for name in names:
        with pytest.raises(GraphError, match=f"{name} is <object"):
            _set(op, {**right, name: object()})


def _set(op: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        object.__setattr__(op, name, value)
    Operator.__post_init__(op)


def _some(hint: Any) -> Any:
    """A value of a declared type."""
    if get_origin(hint) is Literal:
        return get_args(hint)[0]
    if get_origin(hint) is tuple:
        return (_some(get_args(hint)[0]),)
    return _some(get_args(hint)[0]) if get_args(hint) else {int: 1, float: 1.0, bool: False, str: ""}[hint]


def integer(params: dict[str, np.ndarray], **attributes: Any) -> None:
    build = GraphBuilder()
    build.add("input", Input((1, 2, 2), "frames", high=1))
    weight = {"weight": np.ones((1, 1, 1, 1), np.int8), **{k: v for k, v in params.items() if k != "theta"}}
    build.add("c", Conv((1, 1), (0, 0), (1, 1), **{"weight_bits": 8, **attributes}), ["input"], weight)
    build.add("n", IntegerNeuron(1, 0), ["c"], {"theta": params.get("theta", np.ones((1, 1, 1), np.int64))})
    build.add("output", Output(), ["n"], {})
    build.build(time_steps=2, input_encoding="frames", arithmetic="integer")


PARAMETERS = {
    "unsigned threshold": {"theta": np.array(2**63 + 5, np.uint64).reshape(1, 1, 1)},
    "small unsigned threshold": {"theta": np.ones((1, 1, 1), np.uint8)},
    "float threshold": {"theta": np.ones((1, 1, 1))},
    "threshold of 2^62 + 1": {"theta": np.full((1, 1, 1), 2**62 + 1)},
    "unsigned bias": {"bias": np.ones(1, np.uint64)},
    "bias of 2^63 - 1": {"bias": np.array([2**63 - 1])},
    "bias of -2^63": {"bias": np.array([-(2**63)])},
    "unsigned weight": {"weight": np.ones((1, 1, 1, 1), np.uint8)},
    "wide weight": {"weight": np.full((1, 1, 1, 1), 128, np.int16)},
    "boolean weight": {"weight": np.ones((1, 1, 1, 1), bool)},
}


@pytest.mark.parametrize("params", PARAMETERS.values(), ids=PARAMETERS)
def test_parameters_of_integer_graphs(params: dict[str, np.ndarray]) -> None:
    integer({})
    with pytest.raises(GraphError, match=r"parameter|weight"):
        integer(params)


@pytest.mark.parametrize("bits", [None, 0, 1, 33, 64])
def test_weight_bits(bits: int | None) -> None:
    with pytest.raises(GraphError, match="weight_bits"):
        integer({}, weight_bits=bits)


@pytest.mark.parametrize("arguments", [{"bits": 65}, {"bits": 1}, {"high": 0}, {"high": 2**31}])
def test_inputs(arguments: dict[str, int]) -> None:
    with pytest.raises(GraphError, match="input bits"):
        GraphBuilder().add("input", Input((1,), "fixed", **arguments))
