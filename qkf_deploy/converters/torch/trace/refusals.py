"""Why an operator of a program has no form in a spiking graph, and what to do about it."""

from __future__ import annotations

#: Bipolar self-attention (NeurIPS 2025, openreview.net nG45z7lJ7D) normalizes rows by shifts: Shiftmax.
_SHIFTMAX = (
    "a power of two of an activation has no unit: attention normalized by shifts divides each row by a number that the "
    "row decides, so its values reach from 1 down to 2^-2d for heads of d channels, beyond 62 bits for d = 32"
)
_HINTS = {
    "softmax": "spiking attention multiplies spikes without softmax; see docs/front-end.md; return logits without it",
    "_softmax": "spiking attention multiplies spikes without softmax; see docs/front-end.md; return logits without it",
    "log_softmax": "return logits without it",
    "argmax": "return logits; the commands choose the class",
    "scaled_dot_product_attention": "spiking attention multiplies spikes without softmax; see docs/front-end.md",
    "layer_norm": "layer norm divides by statistics of its input; use batch norm",
    "native_layer_norm": "layer norm divides by statistics of its input; use batch norm",
    "group_norm": "group norm divides by statistics of its input; use batch norm",
    "gelu": "put a spiking neuron in its place",
    "silu": "put a spiking neuron in its place",
    "sigmoid": "put a spiking neuron in its place; a learned constant may be a parameter",
    "tanh": "put a spiking neuron in its place",
    "leaky_relu": "put a spiking neuron in its place",
    "sign": "ternary spikes are a sign where the membrane reaches a threshold, s = sign(u) * (abs(u) >= θ); or describe"
    " the neuron class: --neuron CLASS=signed=true (docs/front-end.md)",
    "exp2": _SHIFTMAX,
    "log2": _SHIFTMAX,
    "pow": _SHIFTMAX,
    "frexp": _SHIFTMAX,
    "gt": "register the neuron that compares with a threshold (register_neuron, docs/front-end.md)",
    "ge": "register the neuron that compares with a threshold (register_neuron, docs/front-end.md)",
    "heaviside": "register the neuron that compares with a threshold (register_neuron, docs/front-end.md)",
    "cumsum": "what is added up over the steps before has no form here; sums over all steps, or chunks of them, have",
    "upsample_bicubic2d": "use nearest or bilinear upsampling by a whole factor",
}

#: Of neurons of T time steps and, behind a sum over time, of one, in one model.
ONE_T = "a graph has one T for all of its neurons: its counts, energies and places on chips are per time step"
CUT_THERE = (
    "cut the model at the sum and trace both parts: the front with the sums as its output, and what is behind with the "
    "sums as event frames of one step (--input frames --time-steps 1); see docs/front-end.md"
)

#: Operators that draw random numbers.
_RANDOM = ("rand", "bernoulli", "normal", "poisson", "uniform", "multinomial", "exponential")
_ENCODE = "encode outside of the model (frames of spikes, --input frames), or show it the image at every step"


def refusal(target: str) -> tuple[str, str | None]:
    """``(reason, hint)`` for an operator without a rule, such as ``aten.gelu.default``."""
    name = target.split(".")[1] if target.startswith("aten.") and target.count(".") else target
    if name.startswith(_RANDOM):
        return f"{name} draws random numbers: a run would not be the model's, nor like the next one", _ENCODE
    return f"{name} has no spiking or integer form", _HINTS.get(name.removesuffix("_"))
