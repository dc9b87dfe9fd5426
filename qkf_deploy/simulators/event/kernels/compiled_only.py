"""Functions that exist in compiled code only, each written once: what numba needs besides is made by a decorator.

A function either chooses its code by the types of its arguments (:func:`by_type`) or writes LLVM code itself
(:func:`emitted`). Called from Python, both refuse.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, NamedTuple

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from qkf_deploy.simulators.event.kernels.inner import BORROW

# llvmlite and numba carry no usable types: builders, values and decorated functions are opaque to a type checker.
Builder = Any
Value = Any


def by_type(*, prefer_literal: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Decorator of a function that is given the numba types of its arguments and returns the code for them.

    Args:
        prefer_literal: of constants, it is given their values with their types.
    """

    def decorate(choose: Callable[..., Any]) -> Any:
        @wraps(choose)
        def refuse(*_: Any) -> Any:
            raise NotImplementedError(f"{choose.__name__} is for compiled code only")

        overload(refuse, BORROW, strict=False, prefer_literal=prefer_literal)(choose)
        return refuse

    return decorate


class ArrayValue(NamedTuple):
    """An array as :func:`emitted` code sees it: element type, where its data begin, its shape."""

    element: ir.IntType
    address: Value
    shape: Value


def _array(context: Any, b: Builder, kind: Any, value: Value) -> ArrayValue:
    array = context.make_array(kind)(context, b, value)
    return ArrayValue(ir.IntType(kind.dtype.bitwidth), b.ptrtoint(array.data, ir.IntType(64)), array.shape)


class _Passed(NamedTuple):
    """How an argument reaches the function that writes the code: its numba type, if only one will do, and a view."""

    kind: Any = None
    seen: Callable[[Any, Builder, Any, Value], Any] = lambda context, b, kind, value: value


#: How arguments reach :func:`emitted` code, and what it returns: as LLVM values of a fixed type ...
Address = Annotated[Any, _Passed(types.int64)]
Int = Annotated[Any, _Passed(types.int64)]
Word32 = Annotated[Any, _Passed(types.uint32)]
Word64 = Annotated[Any, _Passed(types.uint64)]
#: ... as an array of any type, as the numba type alone (of an instruction set), as a Python integer known to numba.
Array = Annotated[ArrayValue, _Passed(seen=_array)]
Tag = Annotated[Any, _Passed(seen=lambda context, b, kind, value: kind)]
Literal = Annotated[int, _Passed(seen=lambda context, b, kind, value: kind.literal_value)]


def emitted(write: Callable[..., Any]) -> Any:
    """Decorator of a function that writes LLVM code: of a builder, then arguments annotated with the types above.

    It returns what the code returns, of the annotated type, or ``None``.
    """
    hints = inspect.get_annotations(write, eval_str=True)
    builder, *parameters = inspect.signature(write).parameters.values()
    passed: list[_Passed] = [hints[p.name].__metadata__[0] for p in parameters]
    result = types.void if hints["return"] is None else hints["return"].__metadata__[0].kind

    @wraps(write)
    def typed(typingctx: Any, *given: Any) -> Any:
        def generate(context: Any, b: Builder, sig: Any, args: Any) -> Any:
            seen = (how.seen(context, b, kind, x) for how, kind, x in zip(passed, given, args, strict=True))
            value = write(b, *seen)
            return context.get_dummy_value() if value is None else value

        return result(*(how.kind or kind for how, kind in zip(passed, given, strict=True))), generate

    typed.__signature__ = inspect.Signature([builder, *parameters])  # type: ignore[attr-defined]
    return intrinsic(prefer_literal=Literal in hints.values())(typed)
