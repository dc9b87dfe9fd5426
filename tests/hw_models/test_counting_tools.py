"""The compatibility views give the numbers of the tools themselves, run here on the same network and images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from digits_network import IMAGES, DigitsNetwork
from torch.nn import functional as F

from qkf_deploy.hw_models import EnergyReport, price
from qkf_deploy.simulators.inputs import normalize


@pytest.fixture(scope="module")
def batch(network: DigitsNetwork) -> torch.Tensor:
    assert network.float_graph.preprocessing is not None
    return torch.from_numpy(normalize(network.pixels, network.float_graph.preprocessing))


def priced_as(report: EnergyReport, *quantities: str) -> int:
    return sum(row.counts.get(q, 0) for row in report.layers for q in quantities)


def forward(network: DigitsNetwork, batch: torch.Tensor) -> torch.Tensor:
    from spikingjelly.activation_based import functional

    functional.reset_net(network.model)
    with torch.no_grad():
        return network.model(batch)


def test_neurobench_effective_operations_per_layer(network: DigitsNetwork, batch: torch.Tensor) -> None:
    macs = pytest.importorskip("neurobench.metrics.utils.layers")
    report = price(network.float_ledger, "neurobench-2.3")
    seen: dict[str, tuple[int, bool]] = {}

    def hook(name: str):  # type: ignore[no-untyped-def]
        def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if name not in seen:
                seen[name] = (0, True)  # the count runs a copy of the module: no recursion
                seen[name] = macs.single_layer_MACs(inputs[0], module)

        return count

    kinds = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d)
    handles = [m.register_forward_pre_hook(hook(n)) for n, m in network.model.named_modules() if isinstance(m, kinds)]
    forward(network, batch)
    for handle in handles:
        handle.remove()
    assert len(seen) == 26
    rows = {row.layer: row for row in report.layers}
    for name, (operations, spiking) in seen.items():
        ours = rows[name].counts
        as_ac = ours.get("binary_ac_nonzero_weights", 0)
        as_mac = sum(ours.get(q, 0) for q in ("integer_mac_nonzero", "mac_nonzero_every_step", "head_macs_nonzero"))
        assert (as_ac, as_mac) == ((operations, 0) if spiking else (0, operations)), name
    assert any(spiking for _, spiking in seen.values())
    assert sum(not spiking for _, spiking in seen.values()) > 5  # integer-valued residuals became MACs


def test_neurobench_metric_totals(network: DigitsNetwork, batch: torch.Tensor) -> None:
    """Through NeuroBench's own benchmark objects, at 64-bit sums."""
    pytest.importorskip("neurobench")
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import TorchModel

    wrapped = TorchModel(network.model)
    wrapped.register_hooks()
    forward(network, batch)
    found = SynapticOperations()(wrapped, None, (batch,))
    wrapped.cleanup_hooks()
    report = price(network.float_ledger, "neurobench-2.3")
    macs = priced_as(report, "integer_mac_nonzero", "mac_nonzero_every_step", "head_macs_nonzero")
    assert found["Effective_ACs"] == priced_as(report, "binary_ac_nonzero_weights") / IMAGES
    assert found["Effective_MACs"] == macs / IMAGES


Counts = dict[str, dict[str, int]]  # module -> aten operator -> number; a module includes what lies inside it


def spikingjelly_counts(network: DigitsNetwork, batch: torch.Tensor) -> tuple[Counts, Counts]:
    op_counter = pytest.importorskip("spikingjelly.activation_based.op_counter")
    additions, macs = op_counter.ACCounter(), op_counter.MACCounter()
    with op_counter.DispatchCounterMode([additions, macs]):
        forward(network, batch)

    def plain(records: dict[str, dict[object, int]]) -> Counts:
        out: Counts = {}
        for module, numbers in records.items():
            target = out.setdefault(module.removeprefix("QKFormer."), {})
            for operator, number in numbers.items():
                name = str(operator).split(".")[1]
                target[name] = target.get(name, 0) + number
        return out

    return plain(additions.records), plain(macs.records)


def test_spikingjelly_counters_per_layer(network: DigitsNetwork, batch: torch.Tensor) -> None:
    additions, macs = spikingjelly_counts(network, batch)
    rows = {row.layer: row.counts for row in price(network.float_ledger, "spikingjelly-2.0").layers}
    convolutions = [n for n, m in network.model.named_modules() if isinstance(m, torch.nn.Conv1d | torch.nn.Conv2d)]
    as_mac = 0
    for name in convolutions:
        wanted = (additions[name].get("convolution", 0), macs[name].get("convolution", 0))
        dense = rows[name].get("integer_mac_dense", 0) + rows[name].get("mac_dense_every_step", 0)
        assert (rows[name].get("binary_ac", 0), dense) == wanted, name
        as_mac += dense > 0
    assert (len(convolutions), as_mac) == (25, 15)
    assert (additions["head"].get("addmm", 0), macs["head"]["addmm"]) == (0, rows["head"]["head_macs"])
    for block in ("stage1.0.tssa", "stage2.0.tssa"):
        assert additions[block]["sum"] == rows[f"{block}.sum"]["attention_sum_dense"]
    products = sum(c.get("product_coincidence_or_fanout", 0) for c in rows.values())
    assert additions["stage3.0.ssa"]["bmm"] == products > 0
    assert macs["stage3.0.ssa"].get("bmm", 0) == 0


def test_spikingjelly_residual_additions(network: DigitsNetwork, batch: torch.Tensor) -> None:
    """The additions of a block that are not those inside its neurons."""
    from spikingjelly.activation_based.neuron import BaseNode

    additions, _ = spikingjelly_counts(network, batch)
    neurons = [n for n, m in network.model.named_modules() if isinstance(m, BaseNode)]
    rows = price(network.float_ledger, "spikingjelly-2.0").layers
    for block in ("patch_embed1", "patch_embed2", "patch_embed3", "stage1.0", "stage2.0", "stage3.0"):
        inside = sum(additions[n].get("add", 0) for n in neurons if n.startswith(f"{block}."))
        ours = sum(r.counts.get("residual_adds_tensor", 0) for r in rows if r.layer.startswith(f"{block}."))
        assert additions[block]["add"] - inside == ours > 0, block


def test_sinabs_connection_map(network: DigitsNetwork, batch: torch.Tensor) -> None:
    """Synaptic operations as spikes times a map of ones sent backwards through the convolution, per layer."""
    found: dict[str, int] = {}

    def hook(name: str):  # type: ignore[no-untyped-def]
        def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            ones = torch.ones(1, *output.shape[1:], dtype=torch.float64)
            transposed = F.conv_transpose2d if output.dim() == 4 else F.conv_transpose1d
            stride, kernel = module.stride[0], module.kernel_size[0]
            size = inputs[0].shape[-1]
            left = (size + 2 * module.padding[0] - kernel) % stride
            fanout = transposed(
                ones, torch.ones_like(module.weight), stride=stride, padding=module.padding, output_padding=left
            )
            found[name] = int((inputs[0] * fanout).sum())

        return count

    convs = [(n, m) for n, m in network.model.named_modules() if isinstance(m, torch.nn.Conv1d | torch.nn.Conv2d)]
    handles = [m.register_forward_hook(hook(n)) for n, m in convs if n != "patch_embed1.proj_conv"]
    forward(network, batch)
    for handle in handles:
        handle.remove()
    ours = {n: network.float_ledger[n].total("ac_unary") for n in found}
    assert found == ours
    assert len(found) == 24
    assert np.all(np.array(list(ours.values())) > 0)
