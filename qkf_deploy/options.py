"""The options of every function that has some: types, defaults, limits and meaning, for the API and the command line.

Standard library only, so that `--help` and an editor need neither numpy nor torch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from qkf_deploy.evaluation.tally import Tally
from qkf_deploy.keywords import Help, Options

Layout = Literal["image", "sequence", "frames", "step"]
Encoding = Literal["direct", "frames"]
Form = Literal["step", "sequence"]
Precision = Literal["float32", "float64"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
FramesBy = Literal["number", "time"]
Part = Literal["train", "test", "all"]
Granularity = Literal["block", "operator"]
Carry = Literal["own", "official", "stored"]
NirTool = Literal["nir", "norse", "sinabs", "snntorch", "spikingjelly", "spyx"]
Fires = Literal["above", "at"]
Reset = Literal["hard", "subtract", "subtract-next"]
Gain = Literal["file", "one", "leak"]
NirMode = Literal["portable", "annotated", "partitioned", "chains"]
TableFormat = Literal["table", "json", "csv", "md", "latex"]
EventFormat = Literal["npz", "aer"]
FirstLayer = Literal["once", "every-step"]
RunFormat = Literal["csv", "json", "parquet"]
#: Called with (done, in all).
Progress = Callable[[int, int], None]

#: Bits per weight that :func:`qkf_deploy.quantize` takes.
BITS = (2, 3, 4, 5, 6, 7, 8, 16, 24, 32)
_BITS = ", ".join(map(str, BITS))
_MOST_STEPS = _MOST_PIXELS = 4096


@dataclass(frozen=True, kw_only=True)
class TraceOptions(Options):
    """What a checkpoint or module does not say about itself."""

    checkpoint: Annotated[str | Path | None, Help("Weights for a module:factory.")] = None
    weights: Annotated[
        Literal["raw", "ema"] | None,
        Help("Of a checkpoint with weights and their running average, which [default: raw, with a notice]."),
    ] = None
    arch: Annotated[str | None, Help("Named build, instead of recognising the checkpoint (see docs/models.md).")] = None
    time_steps: Annotated[int | None, Help("T.", least=1, most=_MOST_STEPS)] = None
    heads: Annotated[
        int | Sequence[int] | None, Help("Attention heads, one number or one per stage: 6 or 6,6,6.", least=1)
    ] = None
    image_size: Annotated[
        int | Sequence[int] | None,
        Help(
            "Size of the input in pixels: one number for a square, H,W, L, for a signal of length L; 1 for vectors.",
            least=1,
            most=_MOST_PIXELS,
        ),
    ] = None
    in_channels: Annotated[int | None, Help("Input channels (factories and modules).", least=1)] = None
    input: Annotated[
        Layout | None,
        Help(
            "How a module takes its input: (B,C,H,W), (T,B,C,H,W), event frames (B,T,C,H,W), or (B,C,H,W) once per "
            "time step. Found by trying; event frames must be said."
        ),
    ] = None
    preset: Annotated[str | None, Help("Pixel normalization, and resizing of files: imagenet, cifar10 or none.")] = None
    mean: Annotated[Sequence[float] | None, Help("Mean per channel of pixels in 0..1: 0.485,0.456,0.406.")] = None
    std: Annotated[Sequence[float] | None, Help("Standard deviation per channel.")] = None
    eval_resize: Annotated[
        int | None,
        Help(
            "Image files are scaled to this many pixels of the shorter side, cropped in the centre [default: preset].",
            least=1,
            most=2**16,
        ),
    ] = None
    interpolation: Annotated[Interpolation | None, Help("Of --eval-resize [default: bicubic].")] = None
    class_names: Annotated[Sequence[str], Help("Labels of the logits.", command_line=False)] = ()
    outputs: Annotated[
        Sequence[str] | None,
        Help("Results of the model that become outputs, class logits first: logits,aux.0; or all."),
    ] = None
    factory_arguments: Annotated[
        Mapping[str, Any], Help("Argument of a factory.", flags=("--factory-arg",), metavar="NAME=VALUE")
    ] = field(default_factory=dict[str, Any])
    neurons: Annotated[
        Mapping[str, str],
        Help(
            "What a neuron class computes, where it is not found by itself: file.py:Class or package.module:Class and "
            "attributes of qkf_deploy.ops.Neuron: decay=0.5,v_threshold=.theta,strict=true (.theta: the object's).",
            flags=("--neuron",),
            metavar="CLASS=SPEC",
        ),
    ] = field(default_factory=dict[str, str])


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Options):
    """How two networks are compared."""

    batch: Annotated[int, Help("Images per batch.", flags=("--batch", "--batch-size"), least=1)] = 16
    progress: Annotated[Progress | None, Help("Called with (images done, images in all).", command_line=False)] = None


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(CompareOptions, TraceOptions):
    """How a network is compared with its model, and how the model is traced again."""


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions(Options):
    """How a float graph becomes an integer graph."""

    bits: Annotated[int, Help(f"Bits per weight, symmetric, per output channel: {_BITS}.")] = field(
        default=8, kw_only=False
    )
    first_bits: Annotated[
        int | None, Help("Bits of the first synapse, which sees pixels [default: the larger of bits and 8].")
    ] = None
    layer_bits: Annotated[Mapping[str, int], Help("Bits of single layers, by node name.", metavar="NODE=BITS")] = field(
        default_factory=dict[str, int]
    )
    input: Annotated[
        Literal["bytes", "fixed"],
        Help(
            "bytes: raw pixels, normalization folded exactly into the first synapses; fixed: normalized floats in "
            "input_bits."
        ),
    ] = "bytes"
    input_bits: Annotated[int, Help("Bits of a fixed input.", least=2, most=16)] = 8
    input_max: Annotated[float | None, Help("Largest magnitude of a fixed input [default: from mean and std].")] = None
    fraction_bits: Annotated[
        int | None,
        Help("Extra membrane bits [default: 0 where the decay is lossless, else 8].", least=0, most=24),
    ] = None
    decay_bits: Annotated[
        int, Help("Largest k of the multiplier m / 2^k for decays that are not dyadic.", least=1, most=24)
    ] = 12
    scales: Annotated[
        Literal["keep", "max"],
        Help(
            "Steps of the weights. keep: weights that lie on a grid already (trained with quantization, powers of two) "
            "keep its step, all others have their largest weight as the end of the range; max: all have."
        ),
    ] = "keep"


@dataclass(frozen=True, kw_only=True)
class EngineOptions(Options):
    """Which engine runs, and how. What is not given is the engine's own choice."""

    engine: Annotated[
        str,
        Help(
            "auto, reference, event, torch, onnx or lava; auto is the event engine for integer graphs and the torch "
            "engine for much work on float graphs, where they are installed, else the reference.",
            flags=("--engine", "--backend"),
        ),
    ] = "auto"
    threads: Annotated[int | None, Help("Threads (event, torch and onnx engines).", least=1)] = None
    device: Annotated[str | None, Help("Torch: cpu, cuda or cuda:N [default: cpu].")] = None
    timeout_s: Annotated[
        float | None, Help("Seconds after which a run in Lava is stopped [default: 600].", flags=("--timeout",))
    ] = None
    granularity: Annotated[
        Granularity | None, Help("Lava: a process per residual block or per node [default: block].")
    ] = None
    form: Annotated[Form | None, Help("ONNX: the exported form that runs [default: step].", command_line=False)] = None
    precision: Annotated[
        Precision | None,
        Help("Element type of float graphs [default: float64 in the torch engine, float32 in ONNX]."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class SimulateOptions(EngineOptions):
    """What a simulation keeps, and how it goes about."""

    record: Annotated[
        Sequence[str] | str,
        Help(
            "Nodes whose output to keep; all, events (every layer of events) or gates (Q-K gates).", command_line=False
        ),
    ] = ()
    membranes: Annotated[
        Sequence[str] | str,
        Help("Neurons whose charged membrane potential to keep, or all.", command_line=False),
    ] = ()
    batch: Annotated[
        int | None,
        Help("Images per batch [default: what fits a few hundred megabytes].", least=1, command_line=False),
    ] = None
    progress: Annotated[Progress | None, Help("Called with (images done, images in all).", command_line=False)] = None


@dataclass(frozen=True, kw_only=True)
class DataOptions(Options):
    """How a data set is read."""

    resize: Annotated[
        bool | None,
        Help(
            "Scale and centre-crop image files of another size [default: as stored with the network, else another size "
            "is an error]."
        ),
    ] = None
    limit: Annotated[int | None, Help("Use at most this many images, the first ones.", least=1)] = None
    part: Annotated[
        Part | None,
        Help("Part of a data set that keeps its training and its test part apart [default: test, with a notice]."),
    ] = None
    labels: Annotated[
        str | Path | None,
        Help(
            "CSV with a line `file,label` per sample: which files of the folder are read, in which order.",
            metavar="CSV",
        ),
    ] = None
    frames_by: Annotated[
        FramesBy,
        Help(
            "How recordings become T frames: of equally many events (number), or of equal duration (time); as "
            "SpikingJelly's split_by."
        ),
    ] = "number"
    images_key: Annotated[
        str | None,
        Help("Array of an .npz file that holds the images [default: images, frames, x_test, x, data or the only one]."),
    ] = None
    labels_key: Annotated[
        str | None, Help("Array of an .npz file that holds the labels [default: labels, y_test, y or targets].")
    ] = None

    def stored(self) -> dict[str, Any]:
        """As plain data, from which another process, elsewhere, makes the same options."""
        labels = None if self.labels is None else str(Path(self.labels).resolve())
        return {**vars(self), "labels": labels}


@dataclass(frozen=True, kw_only=True)
class MeasureOptions(DataOptions, EngineOptions):
    """How a network is run for its counts, or which stored run has them."""

    point: Annotated[str | None, Help("Number or name of a run, in a file that holds several.", metavar="POINT")] = None
    progress: Annotated[Progress | None, Help("Called with (images done, images in all).", command_line=False)] = None


@dataclass(frozen=True, kw_only=True)
class ExecutionOptions(Options):
    """Where an evaluation runs. None of it changes a result."""

    jobs: Annotated[int, Help("Processes on this machine.", least=1)] = 1
    scheduler: Annotated[
        str | None,
        Help(
            "Address of a Dask scheduler whose workers run it: tls://HOST:8786, or tcp://127.0.0.1:8786 on this "
            "machine.",
            metavar="ADDRESS",
        ),
    ] = None
    tls_ca: Annotated[str | Path | None, Help("Certificate authority of a tls:// scheduler [default: Dask's own].")] = (
        None
    )
    tls_cert: Annotated[str | Path | None, Help("Certificate to show a tls:// scheduler.")] = None
    tls_key: Annotated[str | Path | None, Help("Key of that certificate.")] = None
    insecure: Annotated[
        bool,
        Help("Use a tcp:// scheduler on another machine: whoever can reach that network can run code on both."),
    ] = False
    shard: Annotated[
        int | None,
        Help("Samples run and stored together, of a float network at least a batch [default: 32].", least=1),
    ] = None
    tick: Annotated[
        Callable[[Tally], None] | None, Help("Called with how far it is, after every shard.", command_line=False)
    ] = None


@dataclass(frozen=True, kw_only=True)
class ResumeOptions(ExecutionOptions, EngineOptions):
    """How an evaluation goes on."""

    network: Annotated[str | Path | None, Help("Where the network is now, if it has moved.", command_line=False)] = None
    data: Annotated[str | Path | None, Help("Where the data are now, if they have moved.", command_line=False)] = None


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(DataOptions, ExecutionOptions, EngineOptions):
    """What is evaluated, and where."""

    steps: Annotated[
        int | Sequence[int] | None,
        Help("Sweep of a float network over T: 1,2,4.", least=1, most=_MOST_STEPS),
    ] = None
    bits: Annotated[
        int | Sequence[int] | None,
        Help(f"Sweep of a float network over bits per weight: 4,8; quantized as `quantize` does ({_BITS})."),
    ] = None
    carry: Annotated[
        Literal["own", "official"] | None,
        Help(
            "Membranes of neurons whose time axis the model merged with the batch: own, or official, from image to "
            "image of a batch in the order of the data, as published [default: as stored with the network]."
        ),
    ] = None
    batch: Annotated[
        int | None,
        Help(
            "Samples that run at once [default: what fits a few hundred megabytes, at most 32; of an integer network "
            "in the torch engine as many as are found to be fastest].",
            flags=("--batch", "--batch-size"),
            least=1,
        ),
    ] = None
    force: Annotated[bool, Help("Replace a run that is there.", command_line=False)] = False


@dataclass(frozen=True, kw_only=True)
class ImportOptions(Options):
    """What a stock NIR file does not say. ``None``: as the preset has it."""

    preset: Annotated[
        NirTool | None,
        Help(
            "The tool that wrote a stock file: its neurons are read as that tool runs them [default: as NIR defines "
            "them, with a notice]."
        ),
    ] = None
    time_steps: Annotated[
        int | None, Help("T of a stock file [default: 4, with a notice].", least=1, most=_MOST_STEPS)
    ] = None
    input_encoding: Annotated[
        Encoding | None,
        Help(
            "Input of a stock file: one image shown T times, or T frames [default: direct, with a notice].",
            flags=("--encoding",),
        ),
    ] = None
    dt: Annotated[
        float | Literal["auto"],
        Help(
            "Time step in seconds that the file was written for. auto: the preset's, else the one in the file's "
            "metadata, else the first of 1e-4, 1 and 1e-3 that fits every neuron (r dt = 1 for IF; a time constant of "
            "1 to 10,000 steps, or r = tau / dt, for the others), else an error.",
            metavar="SECONDS|auto",
        ),
    ] = "auto"
    fires: Annotated[
        Fires | None, Help("Neurons fire above their threshold (NIR's definition) or at it [default: as the preset].")
    ] = None
    reset: Annotated[
        Reset | None,
        Help(
            "What a spike does to the membrane. hard: set it to v_reset; subtract: subtract the threshold; "
            "subtract-next: subtract it in the next step, after the decay [default: as the preset]."
        ),
    ] = None
    spikes: Annotated[
        Literal["one", "several"] | None,
        Help("Spikes per step: one, or as many as the threshold fits into the membrane [default: as the preset]."),
    ] = None
    gain: Annotated[
        Gain | None,
        Help(
            "The input is multiplied by r dt / tau of the file (IF r dt), by one, or by 1 - decay (leak; IF one) "
            "[default: as the preset]."
        ),
    ] = None
    floor: Annotated[
        bool | None, Help("IF membranes do not go below minus their threshold [default: as the preset].")
    ] = None
    readout: Annotated[bool, Help("Mean over time of the output, or one output per step.")] = True
    stock: Annotated[bool, Help("Ignore our sidecar and read the stock nodes.")] = False


@dataclass(frozen=True)
class OnnxOptions(Options):
    """How an ONNX file is written."""

    form: Annotated[Form, Help("ONNX: one time step with the membranes as state, or all T steps in one call.")] = "step"
    precision: Annotated[
        Precision,
        Help("ONNX: element type of float graphs; integer graphs choose from the width proof."),
    ] = "float32"
    values: Annotated[
        Collection[str], Help("Nodes whose value becomes an extra output <node>/value.", command_line=False)
    ] = ()
    membranes: Annotated[
        Collection[str],
        Help("Neurons whose charged membrane becomes an extra output <node>/charged.", command_line=False),
    ] = ()
