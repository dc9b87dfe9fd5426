"""``backend=`` of SpikingJelly 0.0.0.0.13 and 0.0.0.0.14, which 2.0 took away: it chose a kernel, not a behaviour."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def backend_arguments() -> Iterator[None]:
    """While the context lasts, SpikingJelly's neurons take ``backend``, named or behind ``step_mode``."""
    try:
        from spikingjelly.activation_based import functional, neuron
    except ImportError:  # whoever needs it says so
        yield
        return
    classes = [c for c in vars(neuron).values() if inspect.isclass(c) and _lacks_backend(c)]
    before = [(c, c.__init__) for c in classes]
    added = not hasattr(functional, "set_backend")
    for cls, init in before:
        setattr(cls, "__init__", _with_backend(init))  # noqa: B010 - an assignment is no valid override to a checker
    if added:
        setattr(functional, "set_backend", lambda *_, **__: None)  # noqa: B010
    try:
        yield
    finally:
        for cls, init in before:
            setattr(cls, "__init__", init)  # noqa: B010
        if added:
            delattr(functional, "set_backend")


def _lacks_backend(cls: type) -> bool:
    if "__init__" not in vars(cls):
        return False
    parameters = inspect.signature(vars(cls)["__init__"]).parameters
    return "step_mode" in parameters and "backend" not in parameters


def _with_backend(init: Callable[..., None]) -> Callable[..., None]:
    place = list(inspect.signature(init).parameters).index("step_mode")  # counts self, which args does not

    @functools.wraps(init)
    def initialize(self: Any, *args: Any, backend: object = None, **kwargs: Any) -> None:
        if len(args) > place and isinstance(args[place], str):
            args = (*args[:place], *args[place + 1 :])
        init(self, *args, **kwargs)

    return initialize
