"""Neurons of a file's own on SpikingJelly's old base class, in the layout of 0.0.0.0.3 and in that of 0.0.0.0.12."""

import torch
from spikingjelly.clock_driven import accelerating, base, functional, lava_exchange, layer, neuron, surrogate  # noqa: F401
from torch import nn


class Early(neuron.BaseNode):
    """Charges in ``forward``, in place."""

    def __init__(self, w=0.0, v_reset=0.0):
        super().__init__(1.0, v_reset, surrogate.ATan(learnable=False), True, False)
        self.w = nn.Parameter(torch.tensor(w))

    def forward(self, dv):
        self.v += (dv - self.v) * self.w.sigmoid()
        return self.spiking()


class Late(neuron.BaseNode):
    """Charges in a method."""

    def __init__(self):
        super().__init__(v_threshold=0.5, v_reset=None, surrogate_function=surrogate.Sigmoid())

    def neuronal_charge(self, x):
        self.v = 0.75 * self.v + 0.5 * x


class Kept(base.MemoryModule):
    """Has SpikingJelly keep its membrane, and computes everything itself."""

    def __init__(self, v_threshold=0.75):
        super().__init__()
        self.register_memory("v", 0.0)
        self.register_memory("v_threshold", v_threshold)
        self.rate = torch.tensor(0.0).cuda()

    def to_lava(self):
        return lava_exchange.to_lava_neuron(self)

    def forward(self, x):
        self.v = self.v * 0.5 + x
        spike = surrogate.ATan()(self.v - self.v_threshold)
        self.v = self.v * (1.0 - spike)
        return spike


class Small(nn.Module):
    """A stem, then T times the rest; every neuron is known to be one."""

    def __init__(self, T=3, kinds=("early", "late", "own")):
        super().__init__()
        made = {"early": Early, "late": Late, "kept": Kept, "own": lambda: neuron.LIFNode(tau=2.0, detach_reset=True)}
        self.T = T
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.body = nn.Sequential(made[kinds[0]](), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), made[kinds[1]]())
        self.rest = nn.Sequential(
            nn.MaxPool2d(2), layer.Dropout(0.5, dropout_spikes=True), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8),
            made[kinds[2]](), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
        )  # fmt: skip
        self.nodes = sum(isinstance(m, (neuron.BaseNode, Kept)) for m in self.modules())

    def forward(self, x):
        x = self.stem(x)
        out = self.rest(self.body(x))
        for _ in range(1, self.T):
            out = out + self.rest(self.body(x))
        return out / self.T


def small(**kwargs):
    return Small(**kwargs)
