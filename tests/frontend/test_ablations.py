"""Ablations of arXiv 2403.16552, Tables 5 to 7, end to end on small inputs: torch, float, integer, counts, energy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from frontend_networks import assert_exact, assert_sound, traced
from torch import nn

import qkf_deploy as qd
from qkf_deploy.models import QKFormer, build, build_config
from qkf_deploy.models.config import Attention

CIFAR100, DVS = "qkformer-4-384-cifar100", "qkformer-2-256-cifar10dvs"
SMALL = {
    CIFAR100: {"image_size": 16, "embed_dim": 32, "heads": 2, "depths": (1, 1, 1), "num_classes": 5, "time_steps": 2},
    DVS: {"image_size": 32, "embed_dim": 32, "heads": 2, "depths": 1, "num_classes": 5, "time_steps": 3},
}

#: Table 6: attention of the early stages and of the last one; parameters in M on CIFAR100 and CIFAR10-DVS.
TABLE_6: dict[str, tuple[Attention, Attention, float, float]] = {
    "QKTA + SSA": ("qkta", "ssa", 6.74, 1.50),
    "QKCA + SSA": ("qkca", "ssa", 6.74, 1.50),
    "QKTA + QKCA": ("qkta", "qkca", 6.44, 1.44),
    "SSA": ("ssa", "ssa", 6.79, 1.52),
    "QKCA": ("qkca", "qkca", 6.44, 1.44),
    "QKTA": ("qkta", "qkta", 6.44, 1.44),
}


def attention(name: str, base: str) -> tuple[Attention, ...]:
    early, last = TABLE_6[name][:2]
    return (early,) * (len(build_config(base).depths) - 1) + (last,)


def end_to_end(base: str, **overrides: Any) -> None:
    net = traced(QKFormer(build_config(base, **(SMALL[base] | overrides))))
    assert_sound(net)
    run = qd.simulate(qd.quantize(net.graph, 8), net.images)
    assert qd.price(run.ledger, "paper-eq23").total_energy_pj > 0


@pytest.mark.parametrize("name", TABLE_6)
def test_table_6_parameters(name: str) -> None:
    for base, published in ((CIFAR100, TABLE_6[name][2]), (DVS, TABLE_6[name][3])):
        with torch.device("meta"):
            model = build(base, attention=attention(name, base))
        assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == published


@pytest.mark.parametrize("name", TABLE_6)
@pytest.mark.parametrize("base", [CIFAR100, DVS])
def test_table_6_attention_types(name: str, base: str) -> None:
    end_to_end(base, attention=attention(name, base))


TABLES_5_AND_7: dict[str, dict[str, Any]] = {
    "without SPEDS": {"speds": False},
    "pre-activation": {"shortcut": "pa"},
    "pre-activation without SPEDS": {"shortcut": "pa", "speds": False},
    "IF": {"neuron": "if"},
    "PLIF": {"neuron": "plif"},
    "T = 1": {"time_steps": 1},
    "T = 2": {"time_steps": 2},
    "T = 4": {"time_steps": 4},
    "T = 6": {"time_steps": 6},
}


@pytest.mark.parametrize("name", TABLES_5_AND_7)
def test_tables_5_and_7(name: str) -> None:
    end_to_end(CIFAR100, **TABLES_5_AND_7[name])


@pytest.mark.parametrize("name", ["without SPEDS", "pre-activation"])
def test_tables_5_and_7_on_event_frames(name: str) -> None:
    end_to_end(DVS, **TABLES_5_AND_7[name])


def test_spikformer_with_speds_and_without_scaling() -> None:
    """Table 5: self-attention in every stage behind SPEDS, and the same without the factor in front of the neuron."""
    config = build_config(CIFAR100, **SMALL[CIFAR100], attention="ssa")
    scaled = traced(QKFormer(config))
    assert_sound(scaled)

    class Unscaled(nn.Module):
        """The factor 0.125 taken out again in front of the attention neurons."""

        def __init__(self) -> None:
            super().__init__()
            self.T, self.image_size = config.time_steps, config.image_size
            self.network = QKFormer(config)
            for module in list(self.network.modules()):
                if hasattr(module, "attn_lif"):
                    module.attn_lif = nn.Sequential(Times(8.0), module.attn_lif)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network(x)

    unscaled = traced(Unscaled())
    assert_sound(unscaled)
    integer = assert_exact(unscaled.graph, unscaled.images)
    gates = [n for n in integer if n.name.endswith("attn_lif.1")]
    assert gates
    assert all((n.params["theta"] == 1).all() for n in gates)  # V_th 0.5, tau 2, no factor: any coincidence fires


class Times(nn.Module):
    """Multiplies by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor
