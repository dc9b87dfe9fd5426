"""Names that older model files import, under today's torch and SpikingJelly.

Published QKFormer, Spikformer and Spikingformer files are written for SpikingJelly 0.0.0.0.12
(`spikingjelly.clock_driven`) and timm 0.6. :func:`old_names` gives such a file what it imports, without those packages
and without a GPU.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType

from qkf_deploy.converters.torch.compat import (
    braincog_names,
    cext,
    clock_driven,
    openmmlab_names,
    timm_names,
    torchvision_names,
    unused,
)
from qkf_deploy.converters.torch.compat.backends import backend_arguments

_PROVIDERS = (
    ("spikingjelly.clock_driven", clock_driven.modules),
    ("spikingjelly.cext", cext.modules),
    ("timm", timm_names.modules),
    ("braincog.model_zoo.base_module", braincog_names.modules),
    ("torchvision", torchvision_names.modules),
    ("mmengine", openmmlab_names.modules),
)


@contextlib.contextmanager
def old_names() -> Iterator[None]:
    """While the context lasts, imports of packages that do not work here find stand-ins; afterwards they are gone.

    A package that is installed and can be imported is never replaced.
    """
    missing = [(name, modules) for name, modules in _PROVIDERS if not _works(name)]
    added: dict[str, ModuleType] = {}
    for name, modules in missing:
        for known in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
            del sys.modules[known]  # what a failed import left behind
        added.update(modules())
    gone = {name for name in unused.PACKAGES if name not in sys.modules and importlib.util.find_spec(name) is None}
    finder = unused.Finder(gone | {part for name, _ in missing for part in unused.BESIDE.get(name, ())})
    sys.meta_path.insert(0, finder)  # an installed package that cannot be imported is found by others too
    sys.modules.update(added)
    try:
        with backend_arguments():
            yield
    finally:
        sys.meta_path.remove(finder)
        for name, module in list(sys.modules.items()):
            if added.get(name) is module or getattr(module, "__loader__", None) is finder:
                del sys.modules[name]


def _works(name: str) -> bool:
    """True if a package can be imported. An installed package can still fail, e.g. beside another build of torch."""
    if name in sys.modules:
        return True
    try:
        if importlib.util.find_spec(name) is None:
            return False
        importlib.import_module(name)
    except Exception:  # noqa: BLE001 - whatever a broken installation raises
        return False
    return True
