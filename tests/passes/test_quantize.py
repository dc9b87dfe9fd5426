"""Quantization: formulas, byte input, scales that meet, decays; at 24 bits no spike differs from float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from netbuild import LIF, Net, random_pixels, small_transformer

import qkf_deploy as qd
from qkf_deploy.errors import InputError, ProofError, UnsupportedError, UsageError
from qkf_deploy.ir import Graph, Operand, Preprocessing, View
from qkf_deploy.ops import Add, IntegerNeuron, Linear, Mask, MaxPool, Scale, Sum
from qkf_deploy.options import QuantizeOptions
from qkf_deploy.passes.decay import approximate
from qkf_deploy.passes.quantize import BITS, prepare


def spikes_of(graph: Graph, images: np.ndarray) -> dict[str, np.ndarray]:
    names = [n.name for n in graph if n.op.kind in ("neuron", "integer_neuron")]
    return dict(qd.simulate(graph, images, record=names, engine="reference").spikes)


def assert_lossless(graph: Graph, images: np.ndarray, least_rate: float = 0.0) -> Graph:
    """The 24-bit integer graph of ``graph`` gives its spikes: 0 differ, in layers that do fire."""
    integer = qd.quantize(graph, 24)
    expected, got = spikes_of(graph, images), spikes_of(integer, images)
    assert expected.keys() == got.keys()
    for name, spikes in expected.items():
        assert np.array_equal(spikes, got[name]), name
        assert spikes.mean() > least_rate, name
    return integer


def conv_net(seed: int, shape: tuple[int, ...] = (3, 9, 8), **attrs) -> Graph:
    net = Net(seed, shape)
    kernel = attrs.pop("kernel", 3)
    net.lif("lif", net.conv("conv", "input", 6, kernel, **attrs))
    net.lif("lif2", net.conv("conv2", "lif", 5, 3, padding=1, stride=2), v_threshold=0.5)
    net.head("lif2")
    return net.build()


@pytest.mark.parametrize("bits", BITS)
def test_weights_fit_their_bits(bits: int) -> None:
    folded = qd.fold(small_transformer(0))
    graph = qd.quantize(folded, bits)
    limit = 2 ** (bits - 1) - 1
    for node in graph:
        if node.op.kind not in ("conv", "linear"):
            continue
        first = node.name == "embed_conv"
        most = 2 ** (max(bits, 8) - 1) - 1 if first else limit
        weight = node.params["weight"]
        assert node.op.weight_bits == (max(bits, 8) if first else bits)
        assert weight.dtype == (np.int8 if most < 128 else np.int16 if most < 2**15 else np.int32)
        channels = np.abs(weight.astype(np.int64)).reshape(len(weight), -1).max(axis=1)
        assert np.array_equal(channels, np.full(len(weight), most)), node.name  # every channel uses its range
        if first:
            continue
        real = folded[node.name].params
        scale = np.abs(real["weight"]).reshape(len(weight), -1).max(axis=1) / most
        assert np.array_equal(weight, np.rint(real["weight"] / scale.reshape(-1, *[1] * (weight.ndim - 1))))
        assert np.array_equal(node.params["bias"], np.rint(real["bias"] / scale))


@pytest.mark.parametrize(
    ("tau", "reset", "decay_input", "fraction", "expected"),
    [
        (2.0, 0.0, True, None, (1, 1, 0, 2.0)),
        (2.0, 0.0, False, None, (1, 1, 0, 1.0)),
        (None, 0.0, False, None, (1, 0, 0, 1.0)),
        (4.0, 0.0, True, None, (3, 2, 8, 4.0)),
        (2.0, None, True, None, (1, 1, 8, 2.0)),
        (2.0, -0.5, True, 3, (1, 1, 3, 3.0)),
        (1.5, 0.0, True, 0, (1365, 12, 0, 1.5)),
    ],
)
def test_thresholds(tau, reset, decay_input: bool, fraction, expected: tuple) -> None:
    """Θ_c = ceil(τ' (V_th - V_reset) 2^f / s_c), with a scale per channel."""
    net = Net(1, (2, 5, 5))
    net.lif("lif", net.conv("conv", "input", 3), tau=tau, v_reset=reset, decay_input=decay_input)
    net.lif("lif2", net.conv("conv2", "lif", 4), tau=tau, v_reset=reset, decay_input=decay_input, v_threshold=0.7)
    net.head("lif2")
    graph = net.build()
    integer = qd.quantize(graph, 8, fraction_bits=fraction)
    m, k, f, gain = expected
    op = integer["lif2"].op
    assert isinstance(op, IntegerNeuron)
    assert (op.decay_multiplier, op.decay_shift, op.fraction_bits, op.soft_reset) == (m, k, f, reset is None)
    scale = np.abs(graph["conv2"].params["weight"]).reshape(4, -1).max(axis=1) / 127
    height = gain / 1.0 * (0.7 - (reset or 0.0)) if reset != -0.5 else 2.0 * (0.7 + 0.5)
    assert np.array_equal(integer["lif2"].params["theta"].ravel(), np.ceil(height * 2**f / scale))


FIRST_LAYERS = {
    "padded": dict(padding=1),
    "stride": dict(padding=1, stride=2),
    "dilated": dict(padding=2, dilation=2),
    "wide padding": dict(padding=3, stride=2, kernel=5),
    "no padding": dict(padding=0),
    "pointwise": dict(padding=0, kernel=1),
    "grouped": dict(padding=1, groups=3),
    "window larger than the image": dict(padding=4, kernel=9),
}


@pytest.mark.parametrize("attrs", FIRST_LAYERS.values(), ids=FIRST_LAYERS)
@pytest.mark.parametrize("size", [(3, 9, 8), (3, 4, 5)])
def test_byte_input_is_exact_at_borders(attrs: dict, size: tuple[int, ...]) -> None:
    images = random_pixels(1, size, 8)
    assert_lossless(conv_net(2, size, **attrs), images)


EXTREMES = [((0.0,) * 3, (1.0,) * 3), ((0.999, 0.0, 0.5), (0.002, 3.0, 0.2)), ((-2.0, 4.0, 0.4), (0.5, 0.5, 0.01))]


@pytest.mark.parametrize(("mean", "std"), EXTREMES)
def test_byte_input_with_extreme_normalization(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    graph = replace(conv_net(3, padding=1), preprocessing=Preprocessing(mean, std))
    assert_lossless(graph, random_pixels(2, (3, 9, 8), 8))


def test_folded_bias_has_one_value_per_border_case() -> None:
    integer = qd.quantize(conv_net(4, padding=1), 8)
    assert integer["conv"].params["bias"].shape == (6, 3, 3)
    assert qd.quantize(conv_net(4, padding=0), 8)["conv"].params["bias"].shape == (6,)


def test_linear_first_layer() -> None:
    net = Net(5, (2, 3, 4))
    flat = View.of((2, 3, 4), (0, 1, 2), (24,))
    weight = net.rng.normal(0, 0.5, (7, 24))
    net.add("fc", Linear(), Operand("input", flat), weight=weight, bias=net.rng.normal(size=7))
    net.lif("lif", "fc")
    net.head("lif")
    assert_lossless(net.build(), random_pixels(3, (2, 3, 4), 9))


def test_float_images_made_of_bytes_are_the_bytes() -> None:
    graph = conv_net(6, padding=1)
    images = random_pixels(4, (3, 9, 8), 4)
    pre = graph.preprocessing
    assert pre is not None
    normalized = (images / 255.0 - np.reshape(pre.mean, (3, 1, 1))) / np.reshape(pre.std, (3, 1, 1))
    integer = qd.quantize(graph, 8)
    runs = [qd.simulate(integer, x, engine="reference") for x in (images, normalized, normalized.astype(np.float32))]
    assert all(np.array_equal(r.raw_output, runs[0].raw_output) for r in runs)
    assert all(r.notices == () for r in runs)
    between = qd.simulate(integer, normalized + 0.001, engine="reference")
    assert "rounded to the nearest pixel value" in between.notices[0]
    with pytest.raises(InputError, match="outside the pixel range"):
        qd.simulate(integer, normalized * 20)


def test_fixed_input() -> None:
    graph = conv_net(7, padding=1)
    integer = qd.quantize(graph, 24, input="fixed", input_bits=12, input_max=4.0)
    scale = 4.0 / (2**11 - 1)
    assert np.array_equal(integer.input.params["scale"], np.full((1, 1, 1), scale))
    steps = np.random.default_rng(0).integers(-(2**11) + 1, 2**11, (4, 3, 9, 8))
    expected, got = spikes_of(graph, steps * scale), spikes_of(integer, steps * scale)
    assert all(np.array_equal(expected[n], got[n]) for n in expected)
    run = qd.simulate(integer, np.full((1, 3, 9, 8), 9.0), engine="reference")
    assert "216 values beyond the range of the scale were clipped" in run.notices[0]


def test_fixed_input_covers_the_pixels_by_default() -> None:
    graph = replace(conv_net(7, padding=1), preprocessing=Preprocessing((0.5, 0.1, 0.9), (0.25, 0.5, 0.1)))
    integer = qd.quantize(graph, 8, input="fixed")
    assert np.allclose(integer.input.params["scale"] * 127, 9.0)  # (0 - 0.9) / 0.1 is the largest magnitude


def test_event_frames_are_counts() -> None:
    graph = small_transformer(6, frames=True)
    frames = np.random.default_rng(0).integers(0, 4, (3, 4, 3, 9, 7))
    integer = assert_lossless(graph, frames)
    assert integer.input.type.high == 255
    with pytest.raises(InputError, match="whole numbers from 0 to 255"):
        qd.simulate(integer, frames + 300)
    with pytest.raises(InputError, match=r"axis 1 \(T\) is 3, not 4"):
        qd.simulate(integer, frames[:, :3])


@pytest.mark.parametrize("seed", range(5))
def test_lossless_transformer(seed: int) -> None:
    assert_lossless(small_transformer(seed), random_pixels(seed, (3, 9, 7), 6))


def test_eight_bits_are_not_lossless() -> None:
    """Guards the tests above: they would see a difference."""
    graph = small_transformer(0)
    images = random_pixels(0, (3, 9, 7), 6)
    expected, got = spikes_of(graph, images), spikes_of(qd.quantize(graph, 8), images)
    assert sum(int((expected[n] != got[n]).sum()) for n in expected) > 0


def shortcut_net(seed: int, how: str) -> Graph:
    """Drives added to drives: membrane shortcuts, through pools, views, gates, scales and further additions."""
    net = Net(seed, (3, 8, 8))
    net.lif("lif0", net.conv("conv0", "input", 6))
    a, b = net.conv("a", "lif0", 6), net.conv("b", "lif0", 6, kernel=1)
    if how == "pool":
        a, b = (net.add(f"{n}_pool", MaxPool((2, 2), (2, 2), (0, 0)), n) for n in (a, b))
    elif how == "scale":
        b = net.add("b_scaled", Scale(0.3), b)
    elif how == "views":
        mirrored = View.of((6, 8, 8), (0, 2, 1), (6, 8, 8))
        net.add("shuffle", Add(), a, Operand(b, View.of((2, 3, 8, 8), (1, 0, 2, 3), (6, 8, 8))))
        a, b = "shuffle", Operand(net.conv("c", "lif0", 6), mirrored)
    elif how == "gate":
        gate = net.lif("gate", net.add("total", Sum((0,), True), "lif0"), v_threshold=0.5)
        b = net.add("gated", Mask(), gate, b)
    x = net.add("add", Add(), a, b)
    net.lif("lif1", x)
    shape = net.shape(x)
    y = net.conv("c2", "lif1", shape[0])
    x = net.add("add2", Add(), x, y)
    net.lif("lif2", x)
    net.head("lif2")
    return net.build()


SHORTCUTS = ["plain", "pool", "scale", "views", "gate"]


@pytest.mark.parametrize("how", SHORTCUTS)
@pytest.mark.parametrize("seed", range(3))
def test_membrane_shortcuts_share_one_scale(how: str, seed: int) -> None:
    assert_lossless(shortcut_net(seed, how), random_pixels(seed, (3, 8, 8), 4))


def test_shared_scales_by_hand() -> None:
    """Where drives meet, all take the largest scale of each channel; weights keep their bits, a shift rounds sums."""
    graph = shortcut_net(0, "plain")
    integer = qd.quantize(graph, 8)
    own = {n: np.abs(graph[n].params["weight"]).reshape(6, -1).max(axis=1) / 127 for n in ("a", "b", "c2")}
    scale = np.max(list(own.values()), axis=0)
    shifts = {name: np.floor(np.log2(scale / unit)).astype(int) for name, unit in own.items()}
    assert sum(s.any() for s in shifts.values()) == 2
    for name, shift in shifts.items():
        weight = np.rint(graph[name].params["weight"] / (scale / 2.0**shift).reshape(6, 1, 1, 1))
        assert np.array_equal(integer[name].params["weight"], weight)
        assert (np.abs(weight).reshape(6, -1).max(axis=1) >= 64).all()  # 8 bits, in every channel
        assert not shift.any() or integer[f"{name}.shift"].op.bits == tuple(shift)


def test_spikes_added_to_a_drive_enter_through_an_identity_synapse() -> None:
    net = Net(1, (3, 8, 8))
    net.lif("lif0", net.conv("conv0", "input", 3))
    net.add("add", Add(), net.conv("a", "lif0", 3), "lif0")
    net.lif("lif1", "add")
    net.head("lif1")
    graph = net.build()
    assert "add.identity1" in qd.quantize(graph, 8).nodes
    assert_lossless(graph, random_pixels(0, (3, 8, 8), 4))


def test_first_and_layer_bits() -> None:
    graph = conv_net(8)
    bits = {
        n: qd.quantize(graph, 4, first_bits=16, layer_bits={"head": 24})[n].op.weight_bits
        for n in ("conv", "conv2", "head")
    }
    assert bits == {"conv": 16, "conv2": 4, "head": 24}
    assert qd.quantize(graph, 16)["conv"].op.weight_bits == 16
    assert qd.quantize(graph, 4, layer_bits={"conv": 2})["conv"].op.weight_bits == 2


def test_channels_of_vanishing_weights() -> None:
    """Unused channels of trained networks: gains of 1e-20 and less, shifts that remain. No overflow, right spikes."""
    net = Net(9, (2, 6, 6))
    net.lif("lif", net.conv("conv", "input", 4))
    net.conv("dead", "lif", 6)
    weight = net.builder.nodes["dead"].params["weight"].copy()
    bias = np.array([0.6, 0.6, 0.6, 0.0, -3.0, 1e-30])
    weight[0] = 0.0
    weight[1] *= 1e-20
    weight[2] *= 1e-300
    weight[3] *= 1e-25
    weight[4] *= 1e-18
    weight[5] = 0.0
    net.builder.nodes["dead"] = replace(net.builder.nodes["dead"], params={"weight": weight, "bias": bias})
    net.lif("lif2", "dead")
    net.head("lif2")
    graph = net.build()
    images = random_pixels(5, (2, 6, 6), 4)
    for bits in (4, 8, 24):
        integer = qd.quantize(graph, bits)
        got = qd.simulate(integer, images, record="all", engine="reference").spikes["lif2"]
        membrane = np.zeros(())
        for t in range(4):
            membrane = membrane + (0.6 - membrane) / 2
            assert np.array_equal(got[t, :, :3], np.full_like(got[t, :, :3], membrane >= 1.0))
        assert not got[:, :, 3:].any()
        assert int(integer["lif2"].params["theta"].min()) >= 1
        assert max(abs(v) for w in integer.widths.values() for v in w.partial) < 2**53
    strong = replace(LIF, v_threshold=0.4)
    louder = replace(graph, nodes={**graph.nodes, "lif2": replace(graph["lif2"], op=strong)})
    got = qd.simulate(qd.quantize(louder, 8), images, record="all", engine="reference").spikes["lif2"]
    assert got[1, :, :3].all()
    assert not got[0].any()


def test_decays() -> None:
    assert [(d.multiplier, d.shift) for d in map(lambda t: approximate(t, 12), (None, 2.0, 4.0, 1.25, 16.0))] == [
        (1, 0), (1, 1), (3, 2), (round(0.2 * 4096), 12), (15, 4)
    ]  # fmt: skip
    assert approximate(2.0, 12).exact
    assert approximate(4.0, 12).exact
    assert not approximate(1.5, 12).exact
    assert approximate(1.5, 12).error <= 2**-13
    assert [approximate(t, 12).lossless_without_fraction for t in (None, 2.0, 4.0, 1.5)] == [True, True, False, False]


def test_approximate_decays_are_said_so() -> None:
    net = Net(10, (2, 5, 5))
    net.lif("lif", net.conv("conv", "input", 3), tau=1.5)
    net.head("lif")
    integer = qd.quantize(net.build(), 8)
    assert [n for n in integer.notices if n.startswith("lif: the decay 1 - 1/τ = 0.333333 became 1365/2^12, off by")]
    assert integer["lif"].op.fraction_bits == 8
    exact = qd.quantize(conv_net(0), 8)
    assert exact.notices == ()


def test_a_scale_in_front_of_a_neuron_goes_into_its_threshold() -> None:
    integer = qd.quantize(small_transformer(0), 8)
    assert "ssa_scale" not in integer.nodes
    assert np.array_equal(integer["ssa_lif"].params["theta"].ravel(), [8])  # ceil(2 · 0.5 / 0.125)
    assert np.array_equal(integer["qk_gate"].params["theta"].ravel(), [1])


def test_logits_are_integer_times_scale() -> None:
    integer = qd.quantize(conv_net(11), 8)
    run = qd.simulate(integer, random_pixels(6, (3, 9, 8)), engine="reference")
    assert run.raw_output.dtype == np.int64
    assert np.array_equal(run.logits, run.raw_output[0] * integer.output.params["scale"])
    floating = qd.simulate(conv_net(11), random_pixels(6, (3, 9, 8))).logits
    precise = qd.simulate(qd.quantize(conv_net(11), 24), random_pixels(6, (3, 9, 8)), engine="reference").logits
    assert np.abs(precise - floating).max() < 1e-5


def test_scales_of_either_sign_are_refused() -> None:
    net = Net(12, (2, 4, 4))
    net.lif("lif", net.conv("conv", "input", 3))
    net.lif("lif2", net.add("minus", Scale(-1.0), "lif"))
    net.head("lif2")
    with pytest.raises(UnsupportedError, match=r"minus: a scale of -1.0 turns thresholds around"):
        qd.quantize(net.build(), 8)


def test_channels_that_are_added_up_have_one_scale() -> None:
    net = Net(13, (2, 4, 4))
    net.lif("lif", net.add("total", Sum((0,), True), net.conv("conv", "input", 3)))
    net.head("lif")
    graph = net.build()
    scale = prepare(graph, QuantizeOptions(bits=8)).scale
    assert np.unique(scale["conv"]).size == 1
    assert np.array_equal(scale["total"].ravel(), scale["conv"].ravel()[:1])
    pixels = random_pixels(7, (2, 4, 4))
    runs = [qd.simulate(qd.quantize(graph, 16), pixels, engine=engine) for engine in ("reference", "event")]
    assert np.array_equal(runs[0].raw_output, runs[1].raw_output)
    assert np.allclose(runs[0].logits, qd.simulate(graph, pixels).logits, atol=1e-2)


OPTIONS = [
    (dict(bits=9), "bits: 9 bits per weight"),
    (dict(bits=8, first_bits=1), "first_bits: 1 bits per weight"),
    (dict(bits=8, layer_bits={"conv": 7.5}), "conv: 7.5 bits per weight"),
    (dict(bits=8, layer_bits={"lif": 8}), "lif: has no weights to quantize"),
    (dict(bits=8, input="pixels"), "input: 'pixels'"),
    (dict(bits=8, input="fixed", input_bits=1), "input_bits: 1"),
    (dict(bits=8, input="fixed", input_max=-1.0), "input_max: -1.0"),
    (dict(bits=8, fraction_bits=25), "fraction_bits: 25"),
    (dict(bits=8, decay_bits=0), "decay_bits: 0"),
    (dict(bits=8, wrong=1), "no option 'wrong'"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_impossible_options(options: dict, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        qd.quantize(conv_net(14), **options)
    assert message in str(caught.value)


def test_an_unknown_layer_is_named() -> None:
    with pytest.raises(qd.QkfError, match="nowhere: no such node"):
        qd.quantize(conv_net(14), 8, layer_bits={"nowhere": 8})


def test_integer_graphs_are_refused() -> None:
    with pytest.raises(UsageError, match="is an integer graph already"):
        qd.quantize(qd.quantize(conv_net(14), 8), 8)


def test_pixels_read_by_something_else() -> None:
    net = Net(15, (3, 8, 8))
    net.lif("lif", net.add("pool", MaxPool((2, 2), (2, 2), (0, 0)), "input"))
    net.head("lif")
    with pytest.raises(UnsupportedError, match="the pixels are read by pool"):
        qd.quantize(net.build(), 8)
    assert qd.quantize(net.build(), 8, input="fixed").widths


def test_sums_beyond_62_bits_are_refused() -> None:
    net = Net(16, (1, 1, 1))
    x = net.conv("conv0", "input", 1, kernel=1)
    for i in range(3):  # a maximum stands between them, so that they cannot be merged
        x = net.conv(f"conv{i + 1}", net.add(f"max{i}", MaxPool((1, 1), (1, 1), (0, 0)), x), 1, kernel=1, bias=False)
    net.lif("lif", x)
    net.head("lif")
    with pytest.raises(ProofError, match="more than 62 bits"):
        qd.quantize(net.build(), 24)
