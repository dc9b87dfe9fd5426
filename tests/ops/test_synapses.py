"""Convolution, linear, pools, batch norm, matmul and sums against torch, and against brute force tap by tap."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from netbuild import conv_taps, drive_type, real_type, spike_type
from torch.nn import functional as F

from qkf_deploy.errors import ProofError
from qkf_deploy.ops import (
    Add,
    BatchNorm,
    Conv,
    Linear,
    Mask,
    MatMul,
    MaxPool,
    Output,
    Readout,
    Scale,
    Sum,
    SumPool,
)  # fmt: skip
from qkf_deploy.ops.exact import matmul

#: channels in, out, size, kernel, stride, padding, dilation, groups
CONVS = [
    (3, 4, (7, 5), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (2, 3, (6, 9), (1, 1), (2, 2), (0, 0), (1, 1), 1),
    (4, 6, (8, 7), (3, 2), (2, 3), (1, 0), (1, 2), 2),
    (6, 6, (5, 5), (3, 3), (1, 2), (2, 3), (2, 1), 6),
    (1, 1, (1, 1), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (2, 2, (4, 4), (5, 4), (3, 1), (4, 2), (1, 1), 1),
    (3, 5, (9,), (3,), (2,), (1,), (2,), 1),
    (4, 4, (6,), (1,), (1,), (0,), (1,), 4),
]
STEPS, IMAGES = 3, 2


def conv_of(case: tuple) -> tuple[Conv, tuple[int, ...], tuple[int, ...]]:
    channels, out, size, kernel, stride, padding, dilation, groups = case
    return Conv(stride, padding, dilation, groups), (channels, *size), (out, channels // groups, *kernel)


def torch_conv(op: Conv, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """What torch computes in float64 (exact for integers far below 2**53)."""
    function = F.conv1d if len(op.stride) == 1 else F.conv2d
    flat = torch.from_numpy(x.reshape(-1, *x.shape[2:]).astype(np.float64))
    given = None if bias is None else torch.from_numpy(bias.astype(np.float64))
    y = function(
        flat, torch.from_numpy(weight.astype(np.float64)), given, op.stride, op.padding, op.dilation, op.groups
    )
    return y.numpy().reshape(*x.shape[:2], *y.shape[1:])


@pytest.mark.parametrize("case", CONVS, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_conv_against_torch(case: tuple, bias: bool) -> None:
    rng = np.random.default_rng(1)
    op, shape, weight_shape = conv_of(case)
    weight, x = rng.normal(size=weight_shape), rng.normal(size=(STEPS, IMAGES, *shape))
    params = {"weight": weight} | ({"bias": rng.normal(size=weight_shape[0])} if bias else {})
    y = op.run([x], params, STEPS)
    assert y.shape[2:] == op.infer((drive_type(shape),), params).shape
    assert np.allclose(y, torch_conv(op, x, weight, params.get("bias")), rtol=0, atol=1e-13)


@pytest.mark.parametrize("case", CONVS, ids=str)
def test_integer_conv_is_exact(case: tuple) -> None:
    rng = np.random.default_rng(2)
    op, shape, weight_shape = conv_of(case)
    weight = rng.integers(-(2**23), 2**23, weight_shape)
    bias = rng.integers(-(2**40), 2**40, weight_shape[0])
    x = rng.integers(0, 256, (STEPS, IMAGES, *shape))
    y = op.run([x], {"weight": weight, "bias": bias}, STEPS)
    assert y.dtype == np.int64
    assert np.array_equal(y, torch_conv(op, x, weight, bias))
    expected = np.zeros(y.shape[2:], object) + bias.reshape(-1, *[1] * (len(shape) - 1))
    for out, inp, tap in conv_taps(op, shape, weight):
        expected[out] += int(weight[tap]) * int(x[(1, 1, *inp)])
    assert np.array_equal(y[1, 1], expected.astype(np.int64))


def test_border_case_bias() -> None:
    """A bias per border case is what the position's own existing taps would have added."""
    rng = np.random.default_rng(3)
    for case in CONVS:
        op, shape, weight_shape = conv_of(case)
        per_tap = rng.integers(-50, 50, (weight_shape[0], *weight_shape[2:]))
        weight = rng.integers(-9, 9, weight_shape)
        x = rng.integers(0, 5, (1, 1, *shape))
        axes = op.axes(shape, weight)
        bias = per_tap
        for axis in reversed(axes):
            bias = np.moveaxis(np.tensordot(bias, axis.cases()[0].astype(np.int64), axes=([-1], [1])), -1, 1)
        bias = bias.reshape(-1) if bias[0].size == 1 else bias
        expected = op.run([x], {"weight": weight}, 1)[0, 0].copy()
        for out, inp, tap in conv_taps(op, shape, weight):
            if inp[0] == out[0] // (weight_shape[0] // op.groups) * weight_shape[1]:  # once, not per input channel
                expected[out] += per_tap[(tap[0], *tap[2:])]
        got = op.run([x], {"weight": weight, "bias": bias}, 1)[0, 0]
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5)])
def test_linear_against_torch(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(4)
    weight, bias = rng.integers(-128, 128, (7, 5)), rng.integers(-(10**6), 10**6, 7)
    x = rng.integers(-3, 9, (STEPS, IMAGES, *shape))
    y = Linear().run([x], {"weight": weight, "bias": bias}, STEPS)
    expected = F.linear(*(torch.from_numpy(v.astype(np.float64)) for v in (x, weight, bias))).numpy()
    assert np.array_equal(y, expected)
    assert y.shape[2:] == Linear().infer((spike_type(shape),), {"weight": weight, "bias": bias}).shape
    floating = Linear().run([x / 3], {"weight": weight / 7}, STEPS)
    assert np.allclose(floating, (x / 3) @ (weight / 7).T, rtol=1e-14)


POOLS = [((3, 3), (2, 2), (1, 1)), ((2, 2), (2, 2), (0, 0)), ((3, 2), (1, 3), (1, 0)), ((5, 4), (2, 1), (2, 2))]


@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("kind", ["int", "float"])
def test_pools_against_torch(pool: tuple, kind: str) -> None:
    rng = np.random.default_rng(5)
    x = rng.integers(-9, 9, (STEPS, IMAGES, 3, 7, 9))
    x = x if kind == "int" else x / 4
    flat = torch.from_numpy(x.reshape(-1, 3, 7, 9).astype(np.float64))
    largest = MaxPool(*pool).run([x], {}, STEPS)
    assert largest.dtype == x.dtype
    assert np.array_equal(largest.reshape(-1, *largest.shape[2:]), F.max_pool2d(flat, *pool).numpy())
    summed = SumPool(*pool).run([x], {}, STEPS)
    mean = F.avg_pool2d(flat, *pool, count_include_pad=True).numpy() * np.prod(pool[0])
    assert np.array_equal(summed.reshape(-1, *summed.shape[2:]), np.rint(mean * 4) / 4)
    assert summed.shape[2:] == SumPool(*pool).infer((drive_type(x.shape[2:]),), {}).shape


def test_padding_never_wins_a_max_pool() -> None:
    x = np.full((1, 1, 1, 3, 3), -5)
    assert np.array_equal(MaxPool((3, 3), (2, 2), (1, 1)).run([x], {}, 1), np.full((1, 1, 1, 2, 2), -5))


def test_pool_1d() -> None:
    x = np.random.default_rng(6).normal(size=(2, 1, 3, 11))
    flat = torch.from_numpy(x.reshape(-1, 3, 11))
    y = MaxPool((3,), (2,), (1,)).run([x], {}, 2)
    assert np.array_equal(y.reshape(-1, *y.shape[2:]), F.max_pool1d(flat, 3, 2, 1).numpy())


@pytest.mark.parametrize("shape", [(4,), (4, 6), (4, 5, 3)])
def test_batch_norm_against_torch(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(7)
    params = {k: rng.uniform(0.2, 2, 4) for k in ("mean", "var", "weight", "bias")}
    params["weight"] *= np.array([1, -1, 1, 1])
    x = rng.normal(size=(STEPS, IMAGES, *shape))
    flat = torch.from_numpy(x.reshape(-1, *shape))
    expected = F.batch_norm(
        flat, *(torch.from_numpy(params[k]) for k in ("mean", "var", "weight", "bias")), eps=1e-3
    ).numpy()
    y = BatchNorm(1e-3).run([x], params, STEPS)
    assert np.allclose(y.reshape(expected.shape), expected, rtol=0, atol=1e-14)


def test_matmul_against_torch() -> None:
    rng = np.random.default_rng(8)
    a, b = rng.integers(0, 4, (STEPS, IMAGES, 2, 3, 5)), rng.integers(0, 9, (STEPS, IMAGES, 2, 5, 4))
    y = MatMul().run([a, b], {}, STEPS)
    assert np.array_equal(y, torch.matmul(torch.from_numpy(a), torch.from_numpy(b)).numpy())


@pytest.mark.parametrize("bits", [20, 26, 30])
def test_integer_products_are_exact_on_both_sides_of_2_to_53(bits: int) -> None:
    rng = np.random.default_rng(bits)
    a, b = rng.integers(-(2**bits), 2**bits, (3, 6)), rng.integers(-(2**bits), 2**bits, (6, 2))
    a[0], b[:, 0] = 2**bits, 2**bits - 1  # the extreme sum
    expected = (a.astype(object) @ b.astype(object)).astype(np.int64)
    assert np.array_equal(matmul(a, b), expected)


def test_integer_products_never_wrap_around() -> None:
    a = np.full((1, 2), 2**31)
    with pytest.raises(ProofError, match="more than 63 bits"):
        matmul(a, a.T)
    assert int(matmul(a[:, :1], a[:, :1])[0, 0]) == 2**62


def test_sums_masks_and_adds() -> None:
    rng = np.random.default_rng(9)
    x = rng.integers(0, 4, (STEPS, IMAGES, 2, 3, 4))
    gate = rng.integers(0, 2, (STEPS, IMAGES, 2, 1, 4))
    assert np.array_equal(Sum((1,), True).run([x], {}, STEPS), x.sum(axis=3, keepdims=True))
    assert np.array_equal(Sum((0, 2)).run([x], {}, STEPS), x.sum(axis=(2, 4)))
    assert np.array_equal(Mask().run([gate, x], {}, STEPS), np.where(gate == 1, x, 0))
    assert np.array_equal(Mask(invert=True).run([gate, x], {}, STEPS), np.where(gate == 0, x, 0))
    assert np.array_equal(Add().run([x, x], {}, STEPS), 2 * x)
    assert np.array_equal(Scale(0.25).run([x], {}, STEPS), x / 4)


def test_readout_repeats_what_is_constant_over_time() -> None:
    x = np.arange(6).reshape(1, 2, 3)
    assert np.array_equal(Readout().run([x], {}, 5), 5 * x)
    steps = np.arange(12).reshape(2, 2, 3)
    assert np.array_equal(Readout().run([steps], {}, 2), steps.sum(axis=0, keepdims=True))


def test_output_scales_the_logits() -> None:
    raw = np.array([[[3, -4], [5, 6]]])
    assert np.array_equal(Output().logits(raw, {"scale": np.array([0.5, 2.0])}), [[1.5, -8.0], [2.5, 12.0]])
    assert np.array_equal(Output().logits(raw, {}), raw[0])
    per_step = np.arange(8).reshape(2, 2, 2)
    assert Output().logits(per_step, {}).shape == (2, 2, 2)


@pytest.mark.parametrize("case", CONVS, ids=str)
def test_dense_and_existing_multiplications(case: tuple) -> None:
    op, shape, weight_shape = conv_of(case)
    weight = np.ones(weight_shape)
    cost = op.static_cost((real_type(shape),), {"weight": weight})
    assert cost.border_exact_macs == sum(1 for _ in conv_taps(op, shape, weight))
    out = op.infer((real_type(shape),), {"weight": weight}).size
    assert cost.dense_macs == out * int(np.prod(weight_shape[1:]))


def test_dense_multiplications_of_products() -> None:
    linear = Linear().static_cost((spike_type((4, 5)),), {"weight": np.ones((7, 5))})
    assert (linear.dense_macs, linear.border_exact_macs) == (4 * 5 * 7, 4 * 5 * 7)
    product = MatMul().static_cost((spike_type((2, 3, 5)), spike_type((2, 5, 4))), {})
    assert (product.dense_macs, product.border_exact_macs) == (2 * 3 * 5 * 4,) * 2
    assert MaxPool((3, 3), (2, 2), (1, 1)).static_cost((spike_type((2, 5, 5)),), {}).dense_macs == 0
