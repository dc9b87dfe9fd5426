"""How far functions are compiled: kernels to machine code; what they call no further than to LLVM code of each kernel.

numba optimizes every function, makes machine code of it, and does both again wherever it is linked in: what lies five
calls deep would be compiled five times, and only the last of these would ever run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler


class _NoEngine:
    """In place of what runs machine code, and is told where a function's Python objects lie."""

    def set_env(self, name: str, environment: Any) -> None:
        """Nothing: inner functions have no such objects."""


class _Whole(JITCodeLibrary):
    """The code of a kernel with all that it calls, optimized as a whole."""

    def add_llvm_module(self, ll_module: Any) -> None:  # numba would also optimize each function of it
        self._final_module.link_in(ll_module)


class _Part(_Whole):
    """LLVM code that waits to be linked into a kernel."""

    @property
    def codegen(self) -> Any:
        return _NoEngine()

    def finalize(self) -> None:
        self._raise_if_finalized()
        for library in dict.fromkeys(self._linking_libraries):
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return 0


class KernelCompiler(Compiler):
    """numba's pipeline for kernels."""

    _library: type[_Whole] = _Whole

    def compile_extra(self, func: Callable[..., Any]) -> Any:
        """Compile a function."""
        self.state.library = self._library(self.state.targetctx.codegen(), func.__qualname__)
        self.state.library.enable_object_caching()
        return super().compile_extra(func)


class _InnerCompiler(KernelCompiler):
    _library = _Part


#: Compile options of inner functions: nobody else calls them, so that no wrappers are made.
_INNER: Any = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": _InnerCompiler}
#: Those of functions that borrow their arrays: to count references (atomically) at every call would cost more than the
#: work on a tile.
BORROW: Any = {**_INNER, "_nrt": False}


def inner(*, allocates: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Decorator of a function that kernels call. From Python, it cannot be called.

    Args:
        allocates: it makes arrays.
    """
    return njit(**(_INNER if allocates else BORROW))
