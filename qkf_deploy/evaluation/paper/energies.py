"""Where every energy of Table 2 comes from, as far as it can be known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from typing import TYPE_CHECKING

from qkf_deploy.evaluation.paper import dense
from qkf_deploy.evaluation.paper.other_networks import spiking_transformer_macs
from qkf_deploy.evaluation.paper.published import E_AC, E_MAC

if TYPE_CHECKING:
    from qkf_deploy.evaluation.paper.spiking import SpikingCost

#: First layer of every ResNet: 7 x 7, stride 2, at 224 pixels.
_RESNET_FIRST = 64 * 3 * 49 * 112 * 112
#: G synaptic operations beside the energies: Spikformer, ICLR 2023, Table 2; README of the Spikingformer repository.
_SOPS = {
    "SEW-ResNet-34": "3.88", "SEW-ResNet-50": "4.83", "SEW-ResNet-101": "9.30", "SEW-ResNet-152": "13.72",
    "Spikformer-8-384": "6.82", "Spikformer-8-512": "11.09", "Spikformer-8-768": "22.09",
    "Spikingformer-8-384": "3.88", "Spikingformer-8-512": "6.52", "Spikingformer-8-768": "12.54",
}  # fmt: skip
_CENT = Decimal("0.01")


@dataclass(frozen=True)
class Energy:
    """What is known of a printed energy.

    Attributes:
        same: True if it was reached, False if evidence speaks against it, ``None`` if it cannot be computed.
        text: what was found.
        evidence: how.
    """

    same: bool | None
    text: str
    evidence: str


def of_row(row: str, printed: Decimal, cost: Callable[..., SpikingCost]) -> Energy:
    """The energy of a row of Table 2, in mJ."""
    name, size, steps = row.split()
    pixels, time_steps = int(size), int(steps.removeprefix("T="))
    if name in ("ViT-B/16", "DeiT-B", "Swin-B"):
        return _dense("swin-base" if name == "Swin-B" else "vit-base-16", pixels, printed)
    if name.startswith("SEW"):
        return _sew(name, printed)
    if name.startswith("Spikformer"):
        return _spikformer(name, printed)
    if name.startswith("Spikingformer"):
        return _spikingformer(name, printed)
    if name.startswith("S-Transformer"):
        return _spike_driven(name, pixels, time_steps, printed)
    return _qkformer(f"qkformer-{name.removeprefix('HST-')}", pixels, time_steps, printed, cost)


def _dense(model: str, pixels: int, printed: Decimal) -> Energy:
    giga = (Decimal(dense.MODELS[model](pixels).total) / 10**9).quantize(Decimal("0.1"), ROUND_DOWN)
    found = E_MAC * giga
    return Energy(found == printed, f"{found} mJ", f"4.6 pJ x {giga} G MACs (cut to 0.1 G)")


def _millijoule(sops: str, first_macs: int) -> Decimal:
    """0.9 pJ x G operations and 4.6 pJ x the first layer's MACs."""
    return E_AC * Decimal(sops) + E_MAC * Decimal(first_macs) / 10**9


def _near(found: Decimal, printed: Decimal) -> bool:
    """Equal to a cent, the operations being rounded to 0.01 G."""
    return abs(found - printed) <= _CENT


def _sew(name: str, printed: Decimal) -> Energy:
    found = _millijoule(_SOPS[name], _RESNET_FIRST)
    how = f"0.9 pJ x {_SOPS[name]} G operations of Spikformer's Table 2 + 4.6 pJ x first layer once"
    if not _near(found, printed):
        how += f"; {printed} mJ is SEW-ResNet-50's row there ({_millijoule(_SOPS['SEW-ResNet-50'], _RESNET_FIRST):.2f})"
    return Energy(_near(found, printed), f"{found:.3f} mJ", how)


def _spikformer(name: str, printed: Decimal) -> Energy:
    first_of_512 = spiking_transformer_macs(512, 8, 224)[0]
    own = spiking_transformer_macs(int(name.split("-")[-1]), 8, 224)[0]
    with_512, with_own = (_millijoule(_SOPS[name], 4 * first) for first in (first_of_512, own))
    how = f"0.9 pJ x {_SOPS[name]} G operations of Spikformer's Table 2 + 4.6 pJ x 4 x first layer"
    if own == first_of_512:
        return Energy(_near(with_own, printed), f"{with_own:.3f} mJ", how)
    how += f"; the printed {printed} has the first layer of the 512 network ({with_512:.3f})"
    return Energy(_near(with_own, printed), f"{with_own:.3f} mJ", how)


def _spikingformer(name: str, printed: Decimal) -> Energy:
    first = spiking_transformer_macs(int(name.split("-")[-1]), 8, 224)[0]
    found = _millijoule(_SOPS[name], 4 * first)
    how = f"0.9 pJ x {_SOPS[name]} G operations of its repository + 4.6 pJ x 4 x own first layer"
    if name == "Spikingformer-8-512":
        how += "; from its published firing rates 7.457 mJ (7.4635 with bias and head)"
    return Energy(_near(found, printed), f"{found:.3f} mJ", how)


def _spike_driven(name: str, pixels: int, steps: int, printed: Decimal) -> Energy:
    dim = int(name.split("-")[-1])
    implied = {p: _implied_mean(dim, p, steps, printed) for p in (pixels, 224)}
    text = f"implied mean value {implied[pixels]:.4f}"
    if pixels == 224:
        return Energy(None, text, "no rates per layer are published; first layer at every step")
    wider = _implied_mean(512, 224, 4, Decimal("4.50"))
    return Energy(
        False, text, f"at {pixels} pixels the energy implies a mean of {implied[pixels]:.4f}, at 224 one of "
        f"{implied[224]:.4f}; the 512 network's is {wider:.4f}: {printed} mJ fits 224 pixels",
    )  # fmt: skip


def _implied_mean(dim: int, pixels: int, steps: int, printed: Decimal) -> float:
    first, events = spiking_transformer_macs(dim, 8, pixels)
    return float((printed * 10**9 - E_MAC * steps * first) / E_AC / (steps * events))


def _qkformer(build: str, pixels: int, steps: int, printed: Decimal, cost: Callable[..., SpikingCost]) -> Energy:
    found = cost(build, pixels)
    sops = [(printed * 10**9 - E_MAC * times * found.first_macs) / E_AC for times in (1, steps)]
    means = [float(s / (steps * found.event_macs)) for s in sops]
    text = f"implied {float(sops[0]) / 1e9:.3f} G SOPs, mean value {means[0]:.4f}"
    how = f"first layer once; at every step {float(sops[1]) / 1e9:.3f} G and {means[1]:.4f}; no rates are published"
    return Energy(None, text, how)
