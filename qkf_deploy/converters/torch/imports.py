"""A user's own modules: imported from where they lie, and out of everybody's way while nothing of theirs runs."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from qkf_deploy.converters.torch.compat.gpu_calls import gpu_calls

#: A project may hold a copy of this one; what neurons compute is known of the installed one, which takes its place.
NEURONS = "spikingjelly"


@dataclass(frozen=True)
class Imports:
    """Places that code is imported from, and what was imported from there.

    Two projects may both have a ``layers.py``; each gets its own.

    Attributes:
        places: folders, first in the import path while the context lasts.
        own: those whose modules come before modules of the same name that others imported already.
        modules: by full name; known to Python only while the context lasts.
    """

    places: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    modules: dict[str, ModuleType] = field(default_factory=dict)

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences the user should read."""
        copies = [place for place in self.own if (Path(place) / NEURONS / "__init__.py").is_file()]
        said = f"the project's own copy of {NEURONS} was not used: the installed one took its place"
        return (said,) if copies else ()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """The places are in the import path and the modules are known, until the context ends.

        What their code prints goes to stderr (stdout is for results), and its ``.cuda()`` does nothing without a GPU.
        """
        added = [place for place in dict.fromkeys(self.places) if place not in sys.path]
        displaced = self._displaced()
        before = set(sys.modules) - set(displaced)
        for name in displaced:
            del sys.modules[name]
        sys.modules.update(self.modules)
        sys.path[:0] = added
        try:
            with contextlib.redirect_stdout(sys.stderr), gpu_calls():
                yield
        finally:
            new = [(name, module) for name, module in sys.modules.items() if name not in before]
            ours = [name for name, module in new if name in self.modules or _found_in(module, added)]
            self.modules.update((name, sys.modules.pop(name)) for name in ours)
            for place in added:
                with contextlib.suppress(ValueError):  # somebody's code may have removed it
                    sys.path.remove(place)
            sys.modules.update(displaced)

    def _displaced(self) -> dict[str, ModuleType]:
        """Modules of other projects that would answer for ours."""
        roots = {name.partition(".")[0] for name in self.modules}
        roots |= {entry.stem for place in self.own for entry in Path(place).iterdir() if _importable(entry)}
        roots -= {"__main__", NEURONS, __name__.partition(".")[0]}
        return {
            name: module
            for name, module in sys.modules.items()
            if name.partition(".")[0] in roots and not _installed(module) and not _found_in(module, self.places)
        }


def _importable(entry: Path) -> bool:
    return entry.suffix == ".py" or (entry.is_dir() and entry.name.isidentifier())


def _installed(module: ModuleType) -> bool:
    """True for built-in modules, the standard library and installed packages."""
    origin = _origin(module)
    return origin is None or Path(sys.prefix) in origin.parents or Path(sys.base_prefix) / "lib" in origin.parents


def _origin(module: ModuleType) -> Path | None:
    """File of a module, or the folder of one without a file."""
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), None)
    return Path(file) if isinstance(file, str) else None


def _found_in(module: ModuleType, places: list[str] | tuple[str, ...]) -> bool:
    """True if one of these places is the entry of the import path that a module was found in."""
    origin = _origin(module)
    if origin is None:
        return False
    entries = {Path(p) for p in (*sys.path, *places)}
    found = next((folder for folder in origin.parents if folder in entries), None)
    return found is not None and str(found) in places


def load_file(path: Path) -> ModuleType:
    """Execute a Python file as a module; one with relative imports as part of the package that its folder is.

    Args:
        path: of the file, absolute. Its :func:`imports_of` must be active.

    Raises:
        Exception: whatever the code raises.
    """
    folders = _package(path)
    name = f"qkf_user_{path.stem}"
    if folders:
        parts = [folder.name.replace(".", "_") for folder in folders]
        for depth, folder in enumerate(folders, start=1):
            _load_package(".".join(parts[:depth]), folder)
        name = ".".join([*parts, path.stem])
    return sys.modules.get(name) or _execute(name, path)


def imports_of(path: Path) -> Imports:
    """What a file may import: from its folder, as ``python file.py`` does, its package's, and the current one."""
    folders = _package(path)
    own = (str(path.parent), *((str(folders[0].parent),) if folders else ()))
    return Imports((*own, str(Path.cwd())), own)


def _package(path: Path) -> list[Path]:
    """Folders of the package a file belongs to, outermost first; none if it has no relative imports."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []  # executing the file will say it
    level = max((node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)), default=0)
    folders: list[Path] = []
    for folder in path.parents if level else ():
        if len(folders) >= level and not (folder / "__init__.py").is_file():
            break
        folders.insert(0, folder)
    return folders


def _load_package(name: str, folder: Path) -> None:
    if name in sys.modules:
        return
    if (folder / "__init__.py").is_file():
        _execute(name, folder / "__init__.py", [str(folder)])
        return
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package


def _execute(name: str, path: Path, folders: list[str] | None = None) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=folders)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
