"""Checkpoint files in: state dicts from ``.pth``, ``.pt`` and ``.safetensors``, and the QKFormer they belong to.

Nothing in a file is executed: pickles are read with ``weights_only=True``, and the only class allowed beyond those of
torch itself is ``argparse.Namespace``, which the official training scripts store next to the weights.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from qkf_deploy import limits
from qkf_deploy.errors import CheckpointError, UsageError
from qkf_deploy.models.builds import build_config
from qkf_deploy.models.config import QKFormerConfig
from qkf_deploy.models.lazy import import_torch_module
from qkf_deploy.models.recognise import recognise

if TYPE_CHECKING:
    import torch

    from qkf_deploy.models.qkformer import QKFormer

CONFIG_KEY = "qkf_config"
"""Metadata key of a safetensors file that holds :meth:`QKFormerConfig.to_json`."""

_WEIGHT_KEYS = ("state_dict", "model")
_PREFIX = "module."
_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format itself
_REDOWNLOAD = "download or copy the file again, it looks incomplete or damaged"
_OTHER_FILE = "name a .pth, .pt or .safetensors file; if it is one, download or copy it again"
_RESAVE = "in the project that made it, save the weights alone: torch.save(model.state_dict(), ...)"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        state_dict: tensors on the CPU in file order, under names without ``module.`` prefix.
        metadata: text metadata of a safetensors file, else empty.
        sha256: hexadecimal digest of the file.
        container: how the weights were stored, for people: ``safetensors``, ``torch, under 'model'`` ...
    """

    state_dict: dict[str, torch.Tensor]
    metadata: dict[str, str]
    sha256: str
    container: str


def read_state_dict(path: str | Path) -> Checkpoint:
    """Read the weights of a checkpoint file safely.

    The format is found from the content, not the name. A torch file may hold a bare state dict, or one under
    ``state_dict`` or ``model``; ``module.`` prefixes are removed.

    Args:
        path: the file.

    Raises:
        CheckpointError: no such file, not a file, unreadable, truncated, code inside, no state dict, or weights that
            are not finite. Names the file and the next step.
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
            tensors, metadata, container = _read_content(file, where)
    except OSError as error:
        raise CheckpointError(
            f"cannot be read ({error.strerror})", where=where, hint="check the permissions"
        ) from error
    _check_tensors(tensors, where)
    return Checkpoint(tensors, metadata, digest, container)


def load_model(path: str | Path, arch: str | None = None, **overrides: Any) -> tuple[QKFormer, Checkpoint]:
    """Build the QKFormer that a checkpoint belongs to, with its weights, in evaluation mode.

    The architecture is, in this order: ``arch``; the ``qkf_config`` metadata of a safetensors file; what the names and
    shapes show (:func:`qkf_deploy.models.recognise`, which says what they do not show). Weights are float32, or float64
    where the file has float64.

    Args:
        path: the file.
        arch: a named build (``qkf_deploy.models.BUILDS``).
        **overrides: fields of :class:`QKFormerConfig` (``heads``, ``time_steps``, ``image_size`` ...), the last word.

    Raises:
        CheckpointError: as :func:`read_state_dict`; no known architecture; tensors that do not fit the architecture.
        UsageError: an unknown ``arch`` or override.
        MissingComponent: torch or SpikingJelly is not installed.
    """
    checkpoint = read_state_dict(path)
    config = _config(checkpoint, str(path), arch, overrides)
    torch = import_torch_module("torch")
    model_class = import_torch_module("qkf_deploy.models.qkformer").QKFormer
    # Shapes are compared before any memory is taken for weights.
    with torch.device("meta"):
        model = model_class(config)
    _check_fit(model.state_dict(), checkpoint.state_dict, str(path))
    check_numbers(checkpoint.state_dict, model.state_dict(), str(path))
    model.load_state_dict(_one_precision(checkpoint.state_dict), strict=True, assign=True)
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
        raise CheckpointError("the file is empty", where=where, hint=_REDOWNLOAD)
    limits.check(path.stat().st_size, "the file", where)


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _read_content(file: BinaryIO, where: str) -> tuple[dict[str, torch.Tensor], dict[str, str], str]:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(9)
    file.seek(0)
    if len(head) == 9 and head[8:] == b"{":
        return _read_safetensors(file, int.from_bytes(head[:8], "little"), size, where)
    tensors, container = _find_state_dict(_unpickle(file, where), where)
    return tensors, {}, container


def _read_safetensors(
    file: BinaryIO, header_size: int, size: int, where: str
) -> tuple[dict[str, torch.Tensor], dict[str, str], str]:
    import safetensors
    import safetensors.torch

    if header_size > min(size - 8, _MAX_HEADER):
        raise CheckpointError("the safetensors file is truncated", where=where, hint=_REDOWNLOAD)
    content = file.read()
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + header_size])
    except (safetensors.SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise CheckpointError(
            f"the safetensors file is damaged ({_one_line(error)})", where=where, hint=_REDOWNLOAD
        ) from error
    stored = [key for key in header if key != "__metadata__"]
    return {key: tensors[key] for key in stored}, dict(header.get("__metadata__") or {}), "safetensors"


def _unpickle(file: BinaryIO, where: str) -> object:
    import torch

    _check_archive(file, where)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about unusual pickles before it refuses them
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _unpickling_error(error, where) from error
    except Exception as error:  # damaged bytes make torch's readers raise almost any type
        told = isinstance(error, RuntimeError | EOFError)  # any other text is about torch's code, not the file
        detail = f" ({_one_line(error)})" if told else ""
        raise CheckpointError(f"is not a complete torch checkpoint{detail}", where=where, hint=_REDOWNLOAD) from error


def _check_archive(file: BinaryIO, where: str) -> None:
    """A zip file says how large its members become."""
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError):
        unpacked = 0  # torch's older format, or damaged: torch says so
    limits.check(unpacked, "the archive", where)
    file.seek(0)


def _unpickling_error(error: pickle.UnpicklingError, where: str) -> CheckpointError:
    # torch's own text advises weights_only=False, which this package must never pass on.
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    if found:
        return CheckpointError(
            f"holds a Python object that is not weights ({found[1]}); loading it could run code",
            where=where,
            hint=_RESAVE,
        )
    cause = re.search(r"WeightsUnpickler error:\s*([^\n]+)", str(error))
    detail = f" ({cause[1].strip()[:80]})" if cause else ""
    return CheckpointError(f"is not a torch or safetensors checkpoint{detail}", where=where, hint=_OTHER_FILE)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:117] + "..."


def _find_state_dict(content: object, where: str) -> tuple[dict[str, torch.Tensor], str]:
    container = "torch"
    if isinstance(content, Mapping):
        for key in _WEIGHT_KEYS:
            if isinstance(content.get(key), Mapping):
                content, container = content[key], f"torch, under {key!r}"
                break
    tensors = _as_state_dict(content, where)
    if all(name.startswith(_PREFIX) for name in tensors):
        return {
            name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()
        }, f"{container}, {_PREFIX} removed"
    return tensors, container


def _as_state_dict(content: object, where: str) -> dict[str, torch.Tensor]:
    import torch

    if not isinstance(content, Mapping):
        raise CheckpointError(f"holds a {type(content).__name__}, not a state dict", where=where, hint=_RESAVE)
    if not content:
        raise CheckpointError("holds an empty state dict", where=where, hint=_RESAVE)
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"is not a state dict: {str(name)[:60]!r} is a {type(value).__name__}; looked for tensors at the top "
                f"level and under {' and '.join(map(repr, _WEIGHT_KEYS))}",
                where=where,
                hint=_RESAVE,
            )
    return dict(content)


def _check_tensors(tensors: dict[str, torch.Tensor], where: str) -> None:
    import torch

    if not tensors:
        raise CheckpointError("holds no tensors", where=where, hint=_RESAVE)
    # A tensor of stride 0 claims any size; what is computed with takes at most 8 bytes per element.
    limits.check(8 * sum(tensor.numel() for tensor in tensors.values()), "the weights", where)
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise CheckpointError(f"{name} is not a dense tensor", where=where, hint=_RESAVE)
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
