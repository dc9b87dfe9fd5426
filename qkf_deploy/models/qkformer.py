"""QKFormer (arXiv 2403.16552) as a torch module whose state dict has the keys of the official files."""

from __future__ import annotations

from torch import Tensor, nn

from qkf_deploy.errors import InputError
from qkf_deploy.models.config import QKFormerConfig
from qkf_deploy.models.layers import Block, spiking_neuron
from qkf_deploy.models.patch_embed import PatchEmbedding


class QKFormer(nn.Module):
    """Hierarchical spiking transformer: patch embeddings and stages of blocks, then a rate readout.

    Neurons keep their membranes between calls: call SpikingJelly's ``functional.reset_net(model)``
    before each batch, as with any of its models.

    Args:
        config: the architecture.
    """

    def __init__(self, config: QKFormerConfig) -> None:
        super().__init__()
        self.config = config
        stages = range(len(config.depths))
        # Registration order is the key order of the official state dicts: DVS interleaves, the others do not.
        if config.layout == "dvs":
            for stage in stages:
                self._add_embedding(stage)
                self._add_stage(stage)
        else:
            for stage in stages:
                self._add_embedding(stage)
            for stage in stages:
                self._add_stage(stage)
        if config.shortcut == "pa":
            self.head_lif = spiking_neuron(config.neuron)
        self.head = nn.Linear(config.embed_dim, config.num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def _add_embedding(self, stage: int) -> None:
        self.add_module(f"patch_embed{stage + 1}", PatchEmbedding(stage, self.config))

    def _add_stage(self, stage: int) -> None:
        blocks = nn.ModuleList([Block(stage, self.config) for _ in range(self.config.depths[stage])])
        self.add_module(f"stage{stage + 1}", blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores.

        Args:
            x: images ``(B, C, H, W)``, shown ``time_steps`` times; for the ``dvs`` layout event frames
                ``(B, T, C, H, W)``, any T.

        Returns:
            Logits ``(B, num_classes)``: spikes averaged over tokens and time, then one linear layer.

        Raises:
            InputError: an input of another shape.
        """
        self._check_input(x)
        x = self._over_time(x)
        for index in range(1, len(self.config.depths) + 1):
            x = self.get_submodule(f"patch_embed{index}")(x)
            # Iterated, not called: a ModuleList has no forward.
            for block in self.get_submodule(f"stage{index}").children():
                x = block(x)
        if self.config.shortcut == "pa":
            x = self.head_lif(x)
        return self.head(x.flatten(3).mean(3).mean(0))

    def _over_time(self, x: Tensor) -> Tensor:
        if self.config.layout == "dvs":
            return x.permute(1, 0, 2, 3, 4)
        return x.unsqueeze(0).repeat(self.config.time_steps, 1, 1, 1, 1)

    def _check_input(self, x: Tensor) -> None:
        size = self.config.image_size
        leading = "BT" if self.config.layout == "dvs" else "B"
        if x.dim() == len(leading) + 3 and tuple(x.shape[-3:]) == (self.config.in_channels, size, size):
            return
        wanted = f"({', '.join(leading)}, {self.config.in_channels}, {size}, {size})"
        raise InputError(
            f"the model takes {wanted}, the input is {tuple(x.shape)}",
            hint="resize the input, or build the model with another image_size",
        )
