"""The options of a whole run. Standard library only, as :mod:`qkf_deploy.options`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from qkf_deploy.keywords import Help
from qkf_deploy.options import BITS, DataOptions, EngineOptions, ExecutionOptions, TraceOptions


@dataclass(frozen=True, kw_only=True)
class RunOptions(TraceOptions, DataOptions, ExecutionOptions, EngineOptions):
    """Everything between a checkpoint and a page."""

    bits: Annotated[
        int | Sequence[int],
        Help(f"Bits per weight of the integer networks, the first one in detail: 8,4 ({', '.join(map(str, BITS))})."),
    ] = 8
    batch: Annotated[
        int | None,
        Help("Samples that run at once [default: what fits a few hundred megabytes, at most 32].", least=1),
    ] = None
    chip: Annotated[
        str | Path | None,
        Help("A chip by name, or a TOML file: the page has the integer networks on it, with energy and time."),
    ] = None
    chip_images: Annotated[int, Help("Images that run on the chip; their means are shown.", least=1)] = 16
    profiles: Annotated[
        Sequence[str],
        Help("Price profiles of the page, the first one also of the summary.", command_line=False),
    ] = ()
    tell: Annotated[
        Callable[[str], None] | None,
        Help("Called with what was assumed of the network, before anything takes long.", command_line=False),
    ] = None
    stage: Annotated[Callable[[str], None] | None, Help("Called with what begins.", command_line=False)] = None

    @property
    def widths(self) -> tuple[int, ...]:
        """The bits, each once."""
        return tuple(dict.fromkeys([self.bits] if isinstance(self.bits, int) else self.bits))
