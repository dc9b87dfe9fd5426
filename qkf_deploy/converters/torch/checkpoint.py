"""Checkpoint files in: state dicts from ``.pth``, ``.pt`` and ``.safetensors``, and the QKFormer they belong to.

Nothing in a file is executed (:mod:`.unpickling`); where its weights lie and how they are called is
:mod:`.containers`' business.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from qkf_deploy import limits
from qkf_deploy.converters.torch.containers import RESAVE, Weights, find_weights
from qkf_deploy.converters.torch.unpickling import REDOWNLOAD, unpickle
from qkf_deploy.errors import CheckpointError, UsageError, told
from qkf_deploy.filekinds import refuse_others
from qkf_deploy.models.builds import build_config
from qkf_deploy.models.config import QKFormerConfig
from qkf_deploy.models.lazy import import_torch_module
from qkf_deploy.models.recognise import recognise

if TYPE_CHECKING:
    import torch

    from qkf_deploy.models.qkformer import QKFormer

CONFIG_KEY = "qkf_config"
"""Metadata key of a safetensors file that holds :meth:`QKFormerConfig.to_json`."""

SCALE_PREFIX = "drive_scale/"
"""In front of the names of tensors of a safetensors file with the scales of a network trained in integers: the real
value of one unit of the drive, per channel of the synapse whose node name follows."""

_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format itself


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        state_dict: tensors on the CPU in file order, under the model's own names.
        metadata: text metadata of a safetensors file, else empty.
        sha256: hexadecimal digest of the file.
        container: how the weights were stored, for people: ``safetensors``, ``torch, under 'model'`` ...
        notices: sentences the user should read.
        scales: by node name, of a network that was trained in integers: what one unit of a drive stands for, ``(O,)``.
    """

    state_dict: dict[str, torch.Tensor]
    metadata: dict[str, str]
    sha256: str
    container: str
    notices: tuple[str, ...] = ()
    scales: Mapping[str, np.ndarray] = field(default_factory=dict)


def read_state_dict(path: str | Path, weights: str | None = None, wanted: Collection[str] | None = None) -> Checkpoint:
    """Read the weights of a checkpoint file safely.

    The format is found from the content, not the name. A torch file may hold a bare state dict, or one under the keys
    that training scripts use; what DataParallel, torch.compile, Lightning and averaging put in front of every name is
    removed, in safetensors files too.

    Args:
        path: the file.
        weights: ``raw`` or ``ema`` where a file holds weights and their running average; ``None`` takes the weights,
            with a notice.
        wanted: names the model has, where they are known.

    Raises:
        CheckpointError: no such file, not a file, unreadable, truncated, code inside, no state dict, no weights of the
            chosen kind, or weights that are not finite. Names the file and the next step.
        InputError: more than the memory limit.
        MissingComponent: torch is not installed.
    """
    import_torch_module("torch")
    path = Path(path)
    where = str(path)
    _check_file(path)
    try:
        # One handle for digest and content: they describe the same bytes even if the path is replaced meanwhile.
        with path.open("rb") as file:
            digest = _digest(file)
            content, metadata, kind = _read_content(file, where)
    except OSError as error:
        raise CheckpointError(
            f"cannot be read ({error.strerror})", where=where, hint="check the permissions"
        ) from error
    content, scales = _without_scales(content)
    found: Weights = find_weights(content, kind, where, weights, wanted)
    _check_tensors(found.tensors, where)
    return Checkpoint(found.tensors, metadata, digest, found.container, found.notices, scales)


def load_model(
    path: str | Path, arch: str | None = None, *, weights: str | None = None, **overrides: Any
) -> tuple[QKFormer, Checkpoint]:
    """Build the QKFormer that a checkpoint belongs to, with its weights, in evaluation mode.

    The architecture is, in this order: ``arch``; the ``qkf_config`` metadata of a safetensors file; what the names and
    shapes show (:func:`qkf_deploy.models.recognise`, which says what they do not show). Weights are float32, or float64
    where the file has float64.

    Args:
        path: the file.
        arch: a named build (``qkf_deploy.models.BUILDS``).
        weights: as of :func:`read_state_dict`.
        **overrides: fields of :class:`QKFormerConfig` (``heads``, ``time_steps``, ``image_size`` ...), the last word.

    Raises:
        CheckpointError: as :func:`read_state_dict`; no known architecture; tensors that do not fit the architecture.
        UsageError: an unknown ``arch`` or override.
        MissingComponent: torch or SpikingJelly is not installed.
    """
    checkpoint = read_state_dict(path, weights)
    config = _config(checkpoint, str(path), arch, overrides)
    torch = import_torch_module("torch")
    model_class = import_torch_module("qkf_deploy.models.qkformer").QKFormer
    # Shapes are compared before any memory is taken for weights.
    with torch.device("meta"):
        model = model_class(config)
    expected = model.state_dict()
    state = with_counts(checkpoint.state_dict, expected)
    _check_fit(expected, state, str(path))
    check_numbers(state, expected, str(path))
    model.load_state_dict(_one_precision(state), strict=True, assign=True)
    return model.eval(), checkpoint


def _check_file(path: Path) -> None:
    where = str(path)
    if path.is_dir():
        raise CheckpointError("is a directory", where=where, hint="name the checkpoint file inside it")
    if not path.exists():
        raise CheckpointError("no such file", where=where, hint="check the path")
    if not path.is_file():
        raise CheckpointError("is not a regular file", where=where, hint="name a .pth, .pt or .safetensors file")
    if path.stat().st_size == 0:
        raise CheckpointError("the file is empty", where=where, hint=REDOWNLOAD)
    refuse_others(path, "checkpoint", CheckpointError)
    limits.check(path.stat().st_size, "the file", where)


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _read_content(file: BinaryIO, where: str) -> tuple[object, dict[str, str], str]:
    """What a file holds, its text metadata, and its kind."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(9)
    file.seek(0)
    if len(head) == 9 and head[8:] == b"{":
        return *_read_safetensors(file, int.from_bytes(head[:8], "little"), size, where), "safetensors"
    return unpickle(file, where), {}, "torch"


def _read_safetensors(
    file: BinaryIO, header_size: int, size: int, where: str
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    import safetensors
    import safetensors.torch

    if header_size > min(size - 8, _MAX_HEADER):
        raise CheckpointError("the safetensors file is truncated", where=where, hint=REDOWNLOAD)
    content = file.read()
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + header_size])
    except (safetensors.SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise CheckpointError(
            f"the safetensors file is damaged ({told(error)})", where=where, hint=REDOWNLOAD
        ) from error
    stored = [key for key in header if key != "__metadata__"]
    return {key: tensors[key] for key in stored}, dict(header.get("__metadata__") or {})


def _without_scales(content: object) -> tuple[object, dict[str, np.ndarray]]:
    """The content of a file and, apart from it, the scales it holds."""
    if not isinstance(content, dict):
        return content, {}
    names = [name for name in content if isinstance(name, str) and name.startswith(SCALE_PREFIX)]
    scales = {name.removeprefix(SCALE_PREFIX): content[name].double().numpy() for name in names}
    return {name: value for name, value in content.items() if name not in names}, scales


def _check_tensors(tensors: dict[str, torch.Tensor], where: str) -> None:
    import torch

    if not tensors:
        raise CheckpointError("holds no tensors", where=where, hint=RESAVE)
    # A tensor of stride 0 claims any size; what is computed with takes at most 8 bytes per element.
    limits.check(8 * sum(tensor.numel() for tensor in tensors.values()), "the weights", where)
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise CheckpointError(f"{name} is not a dense tensor", where=where, hint=RESAVE)
        count = int((~torch.isfinite(tensor.double())).sum()) if tensor.is_floating_point() else 0
        if count:
            raise CheckpointError(
                f"{name} has {count} values that are not finite",
                where=where,
                hint="use a checkpoint from before training diverged",
            )


def _config(checkpoint: Checkpoint, where: str, arch: str | None, overrides: dict[str, Any]) -> QKFormerConfig:
    if arch is not None:
        return build_config(arch, **overrides)
    if CONFIG_KEY in checkpoint.metadata:
        try:
            stored = QKFormerConfig.from_json(checkpoint.metadata[CONFIG_KEY])
        except UsageError as error:
            raise CheckpointError(
                f"metadata {CONFIG_KEY}: {error.message}", where=where, hint="name the architecture with --arch"
            ) from error
        return stored.replace(**overrides)
    shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.state_dict.items()}
    visible = {name: overrides[name] for name in ("heads", "time_steps", "image_size") if name in overrides}
    try:
        return recognise(shapes, **visible).replace(**overrides)
    except CheckpointError as error:
        raise CheckpointError(error.message, where=where, hint=error.hint) from error


def _check_fit(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], where: str) -> None:
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    shapes = [
        f"{name} is {tuple(found[name].shape)}, not {tuple(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    kinds = [
        f"{name} is {found[name].dtype}"
        for name in expected
        if name in found and found[name].is_floating_point() != expected[name].is_floating_point()
    ]
    problems = [
        f"{len(names)} {title} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for title, names in (
            ("tensors missing", missing),
            ("tensors unexpected", unexpected),
            ("wrong shapes", shapes),
            ("wrong types", kinds),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"does not fit the architecture: {'; '.join(problems)}",
            where=where,
            hint="name the architecture it was trained with (--arch), or give its options",
        )


def with_counts(state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict with the batch counts of batch norms that it lacks, as zero: only training reads them."""
    import torch

    norms = (name.removesuffix("running_var") for name in state if name.endswith("running_var"))
    missing = [name for norm in norms if (name := f"{norm}num_batches_tracked") in expected and name not in state]
    return {**state, **{name: torch.zeros_like(expected[name], device="cpu") for name in missing}}


def check_numbers(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], where: str) -> None:
    """Raises CheckpointError for numbers of another kind than the model's, and for variances below zero."""
    for name, tensor in found.items():
        wanted = expected.get(name)
        if wanted is not None and (tensor.is_floating_point(), tensor.is_complex()) != (
            wanted.is_floating_point(), wanted.is_complex(),
        ):  # fmt: skip
            raise CheckpointError(
                f"{name} is {tensor.dtype}, the model's is {wanted.dtype}",
                where=where,
                hint="quantized or packed weights? give the floating-point checkpoint they were made from",
            )
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise CheckpointError(
                f"{name} has a negative variance", where=where, hint="use a checkpoint that is not damaged"
            )


def _one_precision(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    import torch

    wide = any(tensor.dtype == torch.float64 for tensor in tensors.values())
    dtype = torch.float64 if wide else torch.float32
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
