"""Why an operator of a program has no form in a spiking graph, and what to do about it."""

from __future__ import annotations

_HINTS = {
    "softmax": "spiking attention multiplies spikes without softmax; see docs/front-end.md",
    "_softmax": "spiking attention multiplies spikes without softmax; see docs/front-end.md",
    "scaled_dot_product_attention": "spiking attention multiplies spikes without softmax; see docs/front-end.md",
    "layer_norm": "layer norm divides by statistics of its input; use batch norm",
    "native_layer_norm": "layer norm divides by statistics of its input; use batch norm",
    "group_norm": "group norm divides by statistics of its input; use batch norm",
    "gelu": "put a spiking neuron in its place",
    "silu": "put a spiking neuron in its place",
    "sigmoid": "put a spiking neuron in its place; a learned constant may be a parameter",
    "tanh": "put a spiking neuron in its place",
    "leaky_relu": "put a spiking neuron in its place",
    "sign": "signed (bipolar, ternary) spikes have no form here; events are 0, 1, 2, ...",
    "gt": "register the neuron that compares with a threshold (register_neuron, docs/front-end.md)",
    "ge": "register the neuron that compares with a threshold (register_neuron, docs/front-end.md)",
    "heaviside": "register the neuron that compares with a threshold (register_neuron, docs/front-end.md)",
    "roll": "shifted windows have no form here",
    "einsum": "write it with matmul, sum and *",
    "upsample_bicubic2d": "use nearest or bilinear upsampling by a whole factor",
}

#: Operators that draw random numbers.
_RANDOM = ("rand", "bernoulli", "normal", "poisson", "uniform", "multinomial", "exponential")
_ENCODE = "encode outside of the model (frames of spikes, --input frames), or show it the image at every step"


def refusal(target: str) -> tuple[str, str | None]:
    """``(reason, hint)`` for an operator without a rule, such as ``aten.gelu.default``."""
    name = target.split(".")[1] if target.startswith("aten.") and target.count(".") else target
    if name.startswith(_RANDOM):
        return f"{name} draws random numbers: a run would not be the model's, nor like the next one", _ENCODE
    return f"{name} has no spiking or integer form", _HINTS.get(name.removesuffix("_"))
