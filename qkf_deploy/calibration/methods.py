"""The methods of fitting integers to data, by name; standard library only."""

from __future__ import annotations

from typing import Literal, get_args

Method = Literal["scale", "rounding", "bias"]
METHODS: tuple[Method, ...] = get_args(Method)
