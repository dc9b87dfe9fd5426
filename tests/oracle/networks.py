"""Random torch networks, made of torch and SpikingJelly alone."""

from __future__ import annotations

import random

import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

SIZE, CHANNELS, STEPS = 6, 4, 4


class Dice(random.Random):
    """Random choices of one network; ``dyadic``: its decays are multiples of a power of two, so integers hold them."""

    dyadic = True


def spiking(rng: Dice, threshold: float = 1.0, *, odd: bool = True) -> nn.Module:
    """A neuron of a random kind; ``odd`` ones reset softly or elsewhere, leak slowly, or do not divide their input."""
    dyadic = rng.dyadic
    common = {"v_threshold": threshold, "step_mode": "m"}
    kind = rng.choice(["lif", "if", "lif", "tau", "undivided", "soft", "reset", "tau 1.5"]) if odd else "lif"
    if kind == "if":
        return neuron.IFNode(v_reset=rng.choice([0.0, None]), **common)
    tau = {"tau": rng.choice([4.0, 3.0, 5.0]), "tau 1.5": 1.5}.get(kind, 2.0)
    if dyadic and tau not in (2.0, 4.0):
        tau = 4.0
    reset = {"soft": None, "reset": rng.choice([-0.5, 0.125])}.get(kind, 0.0)
    return neuron.LIFNode(tau=tau, decay_input=kind != "undivided", v_reset=reset, **common)


def fill(module: nn.Module, rng: random.Random) -> None:
    """Weights of a size that makes neurons fire now and then, multiples of 1 / ``module.grid`` where that is not 0."""
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    for m in module.modules():
        if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Linear):
            fan_in = m.weight[0].numel()
            weight = torch.randn(m.weight.shape, generator=generator) * (1.6 / fan_in**0.5) + 0.3 / fan_in
            bias = torch.randn(len(weight), generator=generator) * 0.3 + 0.2
            if getattr(module, "grid", 0):
                weight, bias = (torch.round(v * module.grid) / module.grid for v in (weight, bias))
            m.weight.data = weight
            if m.bias is not None:
                m.bias.data = bias
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            n = m.num_features
            m.running_mean = torch.randn(n, generator=generator) * 0.3
            m.running_var = torch.rand(n, generator=generator) + 0.3
            m.weight.data = torch.rand(n, generator=generator) * 1.2 + 0.5
            m.weight.data[torch.rand(n, generator=generator) < 0.15] *= -1
            m.bias.data = torch.rand(n, generator=generator) * 0.6


class Frames(nn.Module):
    """A module on ``(T, B, ...)`` that runs on every frame by itself."""

    def __init__(self, *inner: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*inner)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x.flatten(0, 1))
        return y.reshape(x.shape[0], x.shape[1], *y.shape[1:])


def body(rng: Dice, channels: int) -> list[nn.Module]:
    """What stands between two neurons: one convolution, or a chain of linear maps."""
    c, n = channels, rng.choice([4, 6])
    bias = rng.random() < 0.5

    def three(fan_in: int, out: int, **kw: int) -> nn.Module:
        return nn.Conv2d(fan_in, out, 3, padding=1, bias=bias, **kw)

    def one(fan_in: int, out: int) -> nn.Module:
        return nn.Conv2d(fan_in, out, 1, bias=bias)

    return rng.choice(
        [
            [three(c, c), nn.BatchNorm2d(c)],
            [three(c, c)],
            [three(c, c, groups=2)],
            [one(c, n), nn.BatchNorm2d(n), three(n, n, groups=n), one(n, c), nn.BatchNorm2d(c)],
            [nn.BatchNorm2d(c), three(c, c)],
            [one(c, n), one(n, c)],
            [three(c, n), nn.Conv2d(n, c, 3, padding=1)],
            [nn.AvgPool2d(2), three(c, c)],
            [three(c, c), nn.AvgPool2d(2), nn.BatchNorm2d(c)],
            [one(c, n), nn.AvgPool2d(3, 1, 1), one(n, c)],
            [three(c, c), nn.MaxPool2d(2), nn.BatchNorm2d(c)],
            [nn.MaxPool2d(3, 1, 1), one(c, c)],
        ]
    )


class Block(nn.Module):
    """body, neuron; with a residual of spikes or a membrane shortcut."""

    def __init__(self, rng: Dice, channels: int) -> None:
        super().__init__()
        self.shortcut = rng.choice(["none", "none", "spikes", "membrane"])
        inner = body(rng, channels)
        if self.shortcut != "none":
            inner = [m for m in inner if not (isinstance(m, nn.AvgPool2d | nn.MaxPool2d) and m.padding == 0)]
        self.body, self.fire = Frames(*inner), spiking(rng)
        if self.shortcut == "membrane":
            self.side = Frames(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.shortcut == "membrane":
            y = y + self.side(x)
        y = self.fire(y)
        return y + x if self.shortcut == "spikes" else y


class Attention(nn.Module):
    """Q-K token attention, or the product of queries, keys and values, on two heads."""

    def __init__(self, rng: Dice, channels: int) -> None:
        super().__init__()
        self.product = rng.random() < 0.5
        self.q, self.k = (Frames(nn.Conv1d(channels, channels, 1), nn.BatchNorm1d(channels)) for _ in "qk")
        self.fire_q, self.fire_k = spiking(rng), spiking(rng)
        self.gate = spiking(rng, 0.5, odd=False)
        if self.product:
            self.v, self.fire_v = Frames(nn.Conv1d(channels, channels, 1)), spiking(rng)
        self.out, self.fire = Frames(nn.Conv1d(channels, channels, 1), nn.BatchNorm1d(channels)), spiking(rng)

    def forward(self, x: Tensor) -> Tensor:
        t, b, c, h, w = x.shape
        flat = x.flatten(3)
        q, k = self.fire_q(self.q(flat)), self.fire_k(self.k(flat))
        if self.product:
            v = self.fire_v(self.v(flat))
            q, k, v = (z.transpose(2, 3).reshape(t, b, h * w, 2, c // 2).permute(0, 1, 3, 2, 4) for z in (q, k, v))
            y = (q @ (k.transpose(-2, -1) @ v)) * 0.125
            y = self.gate(y.transpose(3, 4).reshape(t, b, c, h * w))
        else:
            heads = q.reshape(t, b, 2, c // 2, h * w)
            y = self.gate(heads.sum(dim=3, keepdim=True)) * k.reshape(t, b, 2, c // 2, h * w)
            y = y.flatten(2, 3)
        return x + self.fire(self.out(y)).reshape(t, b, c, h, w)


class Network(nn.Module):
    """Stem, one to three blocks, classifier."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = Dice(seed)
        rng.dyadic = rng.random() < 0.8
        self.T = STEPS
        stem: list[nn.Module] = [nn.Conv2d(2, CHANNELS, 3, padding=1)]
        stem = rng.choice([stem, [*stem, nn.BatchNorm2d(CHANNELS)], [nn.BatchNorm2d(2), *stem]])
        self.stem, self.fire = Frames(*stem), spiking(rng)
        kinds = [rng.choice([Block, Block, Attention]) for _ in range(rng.randint(1, 3))]
        self.blocks = nn.ModuleList(kind(rng, CHANNELS) for kind in kinds)
        self.head = nn.Linear(CHANNELS, 3)
        self.draw(seed)
        self.eval()

    def draw(self, seed: int) -> None:
        """Other weights; some networks have theirs on grids."""
        rng = random.Random(~seed)
        self.grids = rng.random() < 0.4
        for part in (self.stem, *self.blocks, self.head):
            part.grid = rng.choice([2, 4, 8]) if self.grids and rng.random() < 0.8 else 0
            fill(part, rng)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fire(self.stem(x.unsqueeze(0).repeat(self.T, 1, 1, 1, 1)))
        for block in self.blocks:
            y = block(y)
        return self.head(y.flatten(3).mean(3)).mean(0)
