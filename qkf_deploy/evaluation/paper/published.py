"""Published numbers, each with its place. Zhou et al., QKFormer, NeurIPS 2024, arXiv 2403.16552."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

E_MAC = Decimal("4.6")
E_AC = Decimal("0.9")


@dataclass(frozen=True)
class SpikingRow:
    """One QKFormer row.

    Attributes:
        table: where it stands.
        name: as printed.
        build: named build of :mod:`qkf_deploy.models.builds`.
        image_size: pixels a side.
        time_steps: T.
        parameters_m: parameters in millions, as printed; ``None`` where the row gives none.
        power_mj: energy as printed; ``None`` where there is none.
        note: what to know about the row.
    """

    table: str
    name: str
    build: str
    image_size: int
    time_steps: int
    parameters_m: str | None = None
    power_mj: str | None = None
    note: str = ""


SPIKING_ROWS = (
    SpikingRow("Table 2", "HST-10-384", "qkformer-10-384", 224, 4, "16.47", "15.13"),
    SpikingRow("Table 2", "HST-10-512", "qkformer-10-512", 224, 4, "29.08", "21.99"),
    SpikingRow("Table 2", "HST-10-768, T=1", "qkformer-10-768", 224, 1, "64.96", "8.52"),
    SpikingRow("Table 2", "HST-10-768", "qkformer-10-768", 224, 4, "64.96", "38.91"),
    SpikingRow("Table 2", "HST-10-768 at 288", "qkformer-10-768", 288, 4, "64.96", "64.27"),
    SpikingRow("Table 2", "HST-10-768 at 384", "qkformer-10-768", 384, 4, "64.96", "113.64"),
    SpikingRow(
        "Table 3", "CIFAR10 HST-4-384", "qkformer-4-384-cifar10", 32, 4, "6.74", None,
        "6.74 M is the 100-class network; with 10 classes it has 6.71 M",
    ),
    SpikingRow("Table 3", "CIFAR100 HST-4-384", "qkformer-4-384-cifar100", 32, 4, "6.74"),
    SpikingRow("Table 3", "CIFAR10-DVS HST-2-256", "qkformer-2-256-cifar10dvs", 128, 16, "1.50"),
    SpikingRow(
        "Table 3", "DVS128 HST-2-256", "qkformer-2-256-dvs128", 128, 16, "1.50", None,
        "the published code builds it with MLP ratio 4: 2.00 M",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class DenseRow:
    """One ANN row of Table 2: energy is 4.6 pJ x FLOPs, one FLOP being one multiply-accumulate."""

    name: str
    model: str
    image_size: int
    power_mj: str


DENSE_ROWS = (
    DenseRow("ViT-B/16", "vit-base-16", 384, "254.84"),
    DenseRow("DeiT-B", "vit-base-16", 384, "254.84"),
    DenseRow("DeiT-B", "vit-base-16", 224, "80.50"),
    DenseRow("Swin-B", "swin-base", 224, "70.84"),
    DenseRow("Swin-B", "swin-base", 384, "216.20"),
)

#: Table 4: firing rates of the Q-K token attention blocks on ImageNet, stage 1 and stage 2.
TABLE_4: Mapping[str, tuple[str, str]] = {
    "Q": (".0432", ".0231"),
    "K": (".1784", ".0847"),
    "A_t": (".3477", ".2655"),
    "X'": (".0832", ".0350"),
    "projection": (".1478", ".0577"),
    "MLP layer 1": (".0518", ".0246"),
    "MLP layer 2": (".2733", ".1869"),
}

#: Figure 4 and Eq. 15-20: largest variance of the attention sums at head size 64 and 196 tokens.
LARGEST_QKTA_VARIANCE = 16
LARGEST_SSA_VARIANCE = 3000  # "over 3000"

#: Table 9, memory of one attention at C = 256, T = B = 1: side of the token grid -> (QKTA, SSA) in MB, as printed.
TABLE_9: Mapping[int, tuple[str, str]] = {10: ("0.10", "0.14"), 200: ("40.46", "6143")}
TABLE_9_CHANNELS = 256
