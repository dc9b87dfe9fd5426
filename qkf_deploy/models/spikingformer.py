"""Spikingformer (arXiv 2304.11954) as a torch module: pre-activation everywhere, membrane shortcuts.

Layers have the names under which the authors published firing rates (repository zhouchenlin2096/Spikingformer,
``imagenet/energy_consumption_logs``), so those rates find them. Shapes: ``(T, B, C, H, W)``, tokens ``(T, B, C, N)``.
"""

from __future__ import annotations

from torch import Tensor, nn

from qkf_deploy.models.layers import ATTENTION_THRESHOLD, SSA_SCALE, spiking_neuron

_HEAD_SIZE = 64  # of every published ImageNet model
#: What stands around ``_conv`` and ``_bn`` in the names of the tokenizer's layers.
_TOKENIZER = (("proj", ""), ("proj", "1"), ("proj", "2"), ("proj", "3"), ("rpe", ""))


class _Step(nn.Module):
    """A module of synapses and norms that are applied to every time step and image alike."""

    def over_steps(self, names: tuple[str, str], x: Tensor) -> Tensor:
        """Convolution and norm on ``(T, B, C, ...)``."""
        conv, norm = map(self.get_submodule, names)
        drive = norm(conv(x.flatten(0, 1)))
        return drive.reshape(*x.shape[:2], *drive.shape[1:])


class SpikingTokenizer(_Step):
    """Five 3x3 convolutions; a neuron and max pooling by two in front of each but the first."""

    def __init__(self, embed_dim: int, in_channels: int) -> None:
        super().__init__()
        sizes = (in_channels, embed_dim // 8, embed_dim // 4, embed_dim // 2, embed_dim, embed_dim)
        self.steps = tuple((f"{a}_conv{b}", f"{a}_bn{b}") for a, b in _TOKENIZER)
        self.neurons = ("proj_lif", "proj_lif1", "proj_lif2", "proj_lif3")
        for (conv, norm), inputs, outputs in zip(self.steps, sizes, sizes[1:], strict=False):
            self.add_module(conv, nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False))
            self.add_module(norm, nn.BatchNorm2d(outputs))
        for name in self.neurons:
            self.add_module(name, spiking_neuron("lif"))
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``(T, B, C, H, W)`` to drives ``(T, B, embed_dim, H / 16, W / 16)``."""
        x = self.over_steps(self.steps[0], x)
        for neuron, step in zip(self.neurons, self.steps[1:], strict=True):
            spikes = self.get_submodule(neuron)(x)
            pooled = self.maxpool(spikes.flatten(0, 1))
            x = self.over_steps(step, pooled.reshape(*x.shape[:2], *pooled.shape[1:]))
        return x


class SpikingSelfAttention(_Step):
    """A neuron, spikes of Q, K and V, ``q (k^T v)``, a neuron, and the projection, which leaves a drive."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.heads = dim // _HEAD_SIZE
        for name in ("q", "k", "v", "proj"):
            self.add_module(f"{name}_conv", nn.Conv1d(dim, dim, kernel_size=1, bias=name == "proj"))
            self.add_module(f"{name}_bn", nn.BatchNorm1d(dim))
            self.add_module(f"{name}_lif", spiking_neuron("lif"))
        self.attn_lif = spiking_neuron("lif", ATTENTION_THRESHOLD)

    def forward(self, x: Tensor) -> Tensor:
        """``(T, B, C, H, W)`` to the same shape."""
        tokens = self.get_submodule("proj_lif")(x).flatten(3)
        q, k, v = (self._heads(name, tokens) for name in ("q", "k", "v"))
        mixed = (q @ (k.transpose(-2, -1) @ v)) * SSA_SCALE
        spikes = self.attn_lif(mixed.transpose(3, 4).reshape(tokens.shape))
        return self.over_steps(("proj_conv", "proj_bn"), spikes).reshape(x.shape)

    def _heads(self, name: str, tokens: Tensor) -> Tensor:
        spikes = self.get_submodule(f"{name}_lif")(self.over_steps((f"{name}_conv", f"{name}_bn"), tokens))
        steps, batch, channels, count = spikes.shape
        per_token = spikes.transpose(-1, -2).reshape(steps, batch, count, self.heads, channels // self.heads)
        return per_token.permute(0, 1, 3, 2, 4)


class MLP(_Step):
    """Two 1x1 convolutions with bias, a neuron in front of each."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        for name, inputs, outputs in (("fc1", dim, 4 * dim), ("fc2", 4 * dim, dim)):
            self.add_module(f"{name}_lif", spiking_neuron("lif"))
            self.add_module(f"{name}_conv", nn.Conv2d(inputs, outputs, kernel_size=1))
            self.add_module(f"{name}_bn", nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(T, B, C, H, W)`` to the same shape."""
        for name in ("fc1", "fc2"):
            x = self.over_steps((f"{name}_conv", f"{name}_bn"), self.get_submodule(f"{name}_lif")(x))
        return x


class Block(nn.Module):
    """Attention and MLP, each added to the membrane shortcut."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attn = SpikingSelfAttention(dim)
        self.mlp = MLP(dim)

    def forward(self, x: Tensor) -> Tensor:
        """``(T, B, C, H, W)`` to the same shape."""
        x = x + self.attn(x)
        return x + self.mlp(x)


class Spikingformer(nn.Module):
    """The whole network; neurons keep their membranes between calls, as all of SpikingJelly's.

    Args:
        embed_dim: channels, a multiple of 64 (the size of a head).
        depth: blocks.
        in_channels: of the image.
        num_classes: outputs.
        time_steps: T, how often the image is shown.
    """

    def __init__(
        self, embed_dim: int, depth: int = 8, in_channels: int = 3, num_classes: int = 1000, time_steps: int = 4
    ) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.patch_embed = SpikingTokenizer(embed_dim, in_channels)
        self.block = nn.ModuleList([Block(embed_dim) for _ in range(depth)])
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to logits ``(B, num_classes)``: drives averaged over tokens and time, one linear layer."""
        x = self.patch_embed(x.unsqueeze(0).repeat(self.time_steps, 1, 1, 1, 1))
        for block in self.block.children():
            x = block(x)
        return self.head(x.flatten(3).mean(3).mean(0))


def spikingformer_8_384() -> Spikingformer:
    """Spikingformer-8-384."""
    return Spikingformer(384)


def spikingformer_8_512() -> Spikingformer:
    """Spikingformer-8-512."""
    return Spikingformer(512)


def spikingformer_8_768() -> Spikingformer:
    """Spikingformer-8-768."""
    return Spikingformer(768)
