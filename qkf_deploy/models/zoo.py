"""Models that are known to work, and those that are refused, with their size: what `qkf-deploy models` prints.

Parameters and multiply-accumulates were measured by tracing; the table test in tests/frontend measures them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SPIKINGJELLY = "spikingjelly.activation_based.model."
_LIF = "spiking_neuron=spikingjelly.activation_based.neuron:LIFNode"
_PLIF = "spiking_neuron=spikingjelly.activation_based.neuron:ParametricLIFNode"


@dataclass(frozen=True)
class Entry:
    """One model.

    Attributes:
        name: for people.
        source: what `qkf-deploy trace` takes: ``checkpoint`` (recognised from its keys) or ``module:factory``.
        arguments: further options of `trace`, as written on the command line.
        input: how it takes its input (:data:`qkf_deploy.converters.torch.trace.lowering.InputLayout`).
        image_size: in pixels, of the numbers that follow.
        time_steps: T of the factory or of the usual script.
        parameters: of the torch module.
        macs: dense multiply-accumulates per image and time step, padding taps counted.
        note: what it needs, or why it is refused.
        state: ``works`` or ``refused``.
    """

    name: str
    source: str
    arguments: str = ""
    input: str = "image"
    image_size: int = 224
    time_steps: int = 4
    parameters: int = 0
    macs: int = 0
    note: str = ""
    state: Literal["works", "refused"] = "works"


def _build(name: str, size: int, steps: int, parameters: int, macs: int, input_layout: str = "image") -> Entry:
    note = "official checkpoint, or qkf_deploy.models:build"
    return Entry(name, "checkpoint", f"--arch {name}", input_layout, size, steps, parameters, macs, note)


def _jelly(
    name: str, source: str, size: int, steps: int, parameters: int, macs: int, arguments: str = "", note: str = ""
) -> Entry:
    layout = "step" if arguments else "image"
    given = f"--factory-arg {' --factory-arg '.join(arguments.split())} --time-steps {steps}" if arguments else ""
    return Entry(
        name, SPIKINGJELLY + source, f"{given} --image-size {size}".strip(), layout, size, steps, parameters, macs, note
    )


def _spikingformer(width: int, parameters: int, macs: int) -> Entry:
    source = f"qkf_deploy.models.spikingformer:spikingformer_8_{width}"
    note = "membrane shortcut; names of the published firing rates"
    return Entry(f"Spikingformer-8-{width}", source, "--image-size 224", "image", 224, 4, parameters, macs, note)


ENTRIES: tuple[Entry, ...] = (
    _build("qkformer-10-384", 224, 4, 16_473_688, 5_898_673_152),
    _build("qkformer-10-512", 224, 4, 29_079_336, 10_427_486_208),
    _build("qkformer-10-768", 224, 4, 64_962_760, 23_328_995_328),
    _build("qkformer-4-384-cifar10", 32, 4, 6_706_234, 1_515_998_976),
    _build("qkformer-4-384-cifar100", 32, 4, 6_740_884, 1_516_033_536),
    _build("qkformer-2-256-cifar10dvs", 128, 16, 1_504_138, 507_513_344, "frames"),
    _build("qkformer-2-256-dvs128", 128, 16, 1_999_371, 557_845_248, "frames"),
    _spikingformer(384, 16_816_024, 4_737_801_216),
    _spikingformer(512, 29_689_384, 8_359_432_192),
    _spikingformer(768, 66_338_632, 18_666_240_000),
    _jelly("QKFormer-10-384", "qkformer:qkformer_10_384", 224, 4, 16_472_584, 5_898_673_152,
           note="takes official checkpoints too (--checkpoint)"),
    _jelly("Spikformer-Ti", "spikformer:spikformer_ti", 224, 4, 4_400_392, 1_482_254_336),
    _jelly("Spikformer-S", "spikformer:spikformer_s", 224, 4, 13_244_824, 3_995_999_232),
    _jelly("Spikformer CIFAR10", "spikformer:spikformer_cifar10", 32, 4, 9_310_906, 927_747_840),
    _jelly("Spike-driven Transformer 8-384", "spike_driven_transformer:sdt_8_384", 224, 4, 16_816_744, 4_660_730_880,
           note="membrane shortcut"),
    _jelly("Max-Former 10-384", "maxformer:maxformer_10_384", 224, 4, 16_236_616, 5_308_603_392,
           note="membrane shortcut"),
    _jelly("Max-Former CIFAR", "maxformer:maxformer_cifar", 32, 4, 6_602_932, 978_556_416, note="membrane shortcut"),
    _jelly("MS-ResNet-18", "ms_resnet:ms_resnet18", 224, 6, 11_693_736, 1_826_918_400,
           note="membrane shortcut, convolutions of drives"),
    _jelly("MS-ResNet-34", "ms_resnet:ms_resnet34", 224, 6, 21_801_896, 3_676_606_464,
           note="membrane shortcut, convolutions of drives"),
    _jelly("Max-ResNet-18", "ms_resnet:max_resnet18", 32, 4, 12_502_090, 2_669_351_936,
           note="membrane shortcut, convolutions of drives"),
    _jelly("SEW-ResNet-18", "sew_resnet:sew_resnet18", 224, 4, 11_689_512, 1_814_073_344, f"{_LIF} cnf=ADD",
           "cnf = ADD, AND or IAND"),
    _jelly("SEW-ResNet-34", "sew_resnet:sew_resnet34", 224, 4, 21_797_672, 3_663_761_408, f"{_LIF} cnf=ADD",
           "cnf = ADD, AND or IAND"),
    _jelly("SEW-ResNet-50", "sew_resnet:sew_resnet50", 224, 4, 25_557_032, 4_089_184_256, f"{_LIF} cnf=ADD",
           "cnf = ADD, AND or IAND"),
    _jelly("Spiking ResNet-18", "spiking_resnet:spiking_resnet18", 224, 4, 11_689_512, 1_814_073_344, _LIF,
           "spikes added to drives"),
    _jelly("Spiking ResNet-50", "spiking_resnet:spiking_resnet50", 224, 4, 25_557_032, 4_089_184_256, _LIF,
           "spikes added to drives"),
    _jelly("Spiking VGG-11", "spiking_vgg:spiking_vgg11_bn", 224, 4, 132_868_840, 7_609_090_048, _LIF),
    _jelly("Spiking VGG-16", "spiking_vgg:spiking_vgg16_bn", 224, 4, 138_365_992, 15_470_264_320, _LIF),
    _jelly("PLIF-Net CIFAR10", "parametric_lif_net:CIFAR10Net", 32, 4, 36_720_492, 1_701_781_504, _PLIF),
    _jelly("PLIF-Net MNIST", "parametric_lif_net:MNISTNet", 28, 4, 13_201_128, 42_854_400, _PLIF),
    Entry("MA-SNN, Att-MS-ResNet", f"{SPIKINGJELLY}masnn:att_ms_resnet18", state="refused",
          note="attention over time multiplies by sigmoids of pooled drives"),
    Entry("OTTT VGG", f"{SPIKINGJELLY}spiking_vggws_ottt:ottt_spiking_vgg11", state="refused",
          note="OTTTLIFNode has dynamics without an exact form; build it with LIFNode"),
)  # fmt: skip
