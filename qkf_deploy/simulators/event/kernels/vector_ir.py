"""Helpers that write LLVM vector code, and the dot products every instruction set must offer.

Kernels are compiled by numba; where its loops would keep accumulators in memory, an intrinsic writes the vector code
directly. Addresses are plain 64-bit integers; alignment is never assumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from qkf_deploy.simulators.event.kernels.compiled_only import Address, Array, Builder, Int, Value, emitted

I1, I8, I16, I32, I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))

#: Channels of a word of a stream; neurons fire as many at once.
WORD = 32
#: Bytes of an element, and of a word's worth of them.
BYTES_16, BYTES_32, BYTES_64 = 2, 4, 8
WORD_16, WORD_32 = WORD * BYTES_16, WORD * BYTES_32

#: Bytes of a cache line, and of the longest vectors.
CACHE_LINE = 64

#: Type of the ``isa`` argument of a kernel -> instruction set (see :mod:`qkf_deploy.simulators.event.cpu`).
PLAIN, PORTABLE, AVX2, AVX512 = types.int64, types.int8, types.int16, types.int32


def vector_bytes(isa: types.Type) -> int:
    """Bytes per vector register."""
    return 32 if isa == AVX2 else 64


def vec(element: ir.Type, count: int) -> ir.VectorType:
    """Vector type."""
    return ir.VectorType(element, count)


def const(value: int) -> ir.Constant:
    """64-bit constant."""
    return ir.Constant(I64, value)


def load(b: Builder, address: Value, type_: ir.Type) -> Value:
    """Unaligned load from an integer address."""
    instruction = b.load(b.inttoptr(address, type_.as_pointer()))
    instruction.align = 1
    return instruction


def store(b: Builder, value: Value, address: Value) -> None:
    """Unaligned store to an integer address."""
    instruction = b.store(value, b.inttoptr(address, value.type.as_pointer()))
    instruction.align = 1


def offset(b: Builder, address: Value, index: Value, size: int) -> Value:
    """Address of element ``index`` of so many bytes each."""
    return b.add(address, b.mul(index, const(size)))


def load_each(b: Builder, address: Value, kinds: list[Any]) -> list[Value]:
    """Vectors of these types that lie side by side from an address on."""
    return [load(b, b.add(address, const(at)), kind) for kind, at in zip(kinds, _offsets(kinds), strict=True)]


def store_each(b: Builder, values: list[Value], address: Value) -> None:
    """Store vectors side by side from an address on."""
    for value, at in zip(values, _offsets([value.type for value in values]), strict=True):
        store(b, value, b.add(address, const(at)))


def _offsets(kinds: list[Any]) -> list[int]:
    sizes = [kind.count * kind.element.width // 8 for kind in kinds]
    return [sum(sizes[:i]) for i in range(len(sizes))]


def reduced(b: Builder, combine: Any, vectors: list[Value]) -> list[Value]:
    """Vectors combined elementwise, one for each type among them."""
    counts = sorted({x.type.count for x in vectors})
    return [reduce(lambda x, y: combine(b, x, y), [x for x in vectors if x.type.count == n]) for n in counts]


@emitted
def address(b: Builder, array: Array) -> Address:
    """Where an array's data begin, as a signed integer: numba adds signed and unsigned ones as floats."""
    return array.address


@emitted
def prefetch(b: Builder, address: Address, size: Int) -> None:
    """Ask for so many bytes from an address on, for reading, in order."""
    pointer = I8.as_pointer()
    signature = ir.FunctionType(ir.VoidType(), [pointer, I32, I32, I32])
    function = b.module.declare_intrinsic("llvm.prefetch", (pointer,), signature)
    to_read, second_cache, data = (ir.Constant(I32, n) for n in (0, 2, 1))
    with cgutils.for_range_slice(b, const(0), size, const(CACHE_LINE), I64) as (at, _):
        b.call(function, [b.inttoptr(b.add(address, at), pointer), to_read, second_cache, data])


def splat(b: Builder, value: Value, count: int) -> Value:
    """Vector whose elements are all ``value``."""
    v = ir.Constant(vec(value.type, count), ir.Undefined)
    v = b.insert_element(v, value, ir.Constant(I32, 0))
    return b.shuffle_vector(v, v, ir.Constant(vec(I32, count), [0] * count))


def bits_to_bytes(b: Builder, bits: Value) -> Value:
    """32 bytes of 0 or 1 from a 32-bit word.

    Written out, since LLVM takes a widened vector of bits apart one by one.
    """
    kind = vec(I8, 32)
    source = b.bitcast(splat(b, bits, 8), kind)
    each = shuffle(b, source, source, [4 * (i // 4) + i // 8 for i in range(32)])
    own_bit = b.and_(each, ir.Constant(kind, [1 << i % 8 for i in range(32)]))
    return _elementwise(b, "umin", own_bit, ir.Constant(kind, [1] * 32))


def shuffle(b: Builder, x: Value, y: Value, order: list[int]) -> Value:
    """Elements of ``x`` followed by ``y`` in the given order."""
    return b.shuffle_vector(x, y, ir.Constant(vec(I32, len(order)), order))


def accumulators(b: Builder, kinds: list[Any]) -> list[Value]:
    """Zeroed variables of these types; LLVM keeps them in registers over the loops that use them."""
    return [cgutils.alloca_once_value(b, ir.Constant(kind, None)) for kind in kinds]


def add_to(b: Builder, accumulator: Value, value: Value) -> None:
    """``accumulator += value``."""
    b.store(b.add(b.load(accumulator), value), accumulator)


@contextmanager
def counted_loop(b: Builder, count: Value) -> Iterator[Value]:
    """Loop over ``0 .. count``; yields the index. LLVM does not unroll it.

    For a few dozen short passes, the branch into what is left over from an unrolled loop is mispredicted too often.
    """
    start, body, end = b.basic_block, b.append_basic_block("counted.body"), b.append_basic_block("counted.end")
    b.cbranch(b.icmp_signed(">", count, const(0)), body, end)
    b.position_at_end(body)
    index = b.phi(I64)
    index.add_incoming(const(0), start)
    yield index
    following = b.add(index, const(1))
    index.add_incoming(following, b.basic_block)
    again = b.cbranch(b.icmp_signed("<", following, count), body, end)
    again.set_metadata("llvm.loop", _never_unrolled(b.module))
    b.position_at_end(end)


def _never_unrolled(module: Any) -> Any:
    """A loop's own metadata node: its first operand is the node itself."""
    option = module.add_metadata(["llvm.loop.unroll.disable"])
    node = module.add_metadata([option, ir.Constant(I64, len(module.metadata))])
    node.operands = (node, option)
    return node


def interleave_order(size: int, half: int) -> list[int]:
    """Order of ``punpcklbw`` (half 0) or ``punpckhbw`` (half 1): two vectors interleaved within 16-byte lanes."""
    order = []
    for lane in range(0, size, 16):
        for i in range(8):
            order += [lane + 8 * half + i, size + lane + 8 * half + i]
    return order


def _strided(b: Builder, x: Value, step: int, phase: int) -> Value:
    return shuffle(b, x, x, list(range(phase, x.type.count, step)))


def _portable_dot(b: Builder, x: Value, w: Value, terms: int, out: ir.Type, *, signed_x: bool) -> Value:
    """Sums of ``terms`` neighbouring products, in elements of type ``out``."""
    total = None
    for phase in range(terms):
        a = _strided(b, x, terms, phase)
        wide_type = vec(out, a.type.count)
        wide = b.sext(a, wide_type) if signed_x else b.zext(a, wide_type)
        product = b.mul(wide, b.sext(_strided(b, w, terms, phase), wide_type))
        total = product if total is None else b.add(total, product)
    return total


def pair_dot(b: Builder, isa: types.Type, x: Value, w: Value) -> Value:
    """u8 x s8 products added in pairs to 16 bits. The caller guarantees that no pair passes 16 bits."""
    if isa not in (AVX2, AVX512):
        return _portable_dot(b, x, w, 2, I16, signed_x=False)
    name = "llvm.x86.avx2.pmadd.ub.sw" if x.type.count == 32 else "llvm.x86.avx512.pmaddubs.w.512"
    out = vec(I16, x.type.count // 2)
    return b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(out, [x.type, w.type]), name), [x, w])


def quad_dot_add(b: Builder, isa: types.Type, acc: Value, x: Value, w: Value) -> Value:
    """``acc`` plus u8 x s8 products added in fours to 32 bits (``vpdpbusd``)."""
    if isa != AVX512:
        return b.add(acc, _portable_dot(b, x, w, 4, I32, signed_x=False))
    kind = acc.type
    function = cgutils.get_or_insert_function(
        b.module, ir.FunctionType(kind, [kind, kind, kind]), "llvm.x86.avx512.vpdpbusd.512"
    )
    return b.call(function, [acc, b.bitcast(x, kind), b.bitcast(w, kind)])


def word_dot(b: Builder, isa: types.Type, x: Value, w: Value) -> Value:
    """s16 x s16 products added in pairs to 32 bits."""
    name = {AVX2: "llvm.x86.avx2.pmadd.wd", AVX512: "llvm.x86.avx512.pmaddw.d.512"}.get(isa)
    if name is None:
        return _portable_dot(b, x, w, 2, I32, signed_x=True)
    out = vec(I32, x.type.count // 2)
    return b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(out, [x.type, w.type]), name), [x, w])


def clamp(b: Builder, x: Value, low: int, high: int) -> Value:
    """Each element, or the nearer of the two bounds."""
    lowest, highest = (ir.Constant(x.type, [n] * x.type.count) for n in (low, high))
    return smallest(b, largest(b, x, lowest), highest)


def largest(b: Builder, x: Value, y: Value) -> Value:
    """The larger of each two elements, signed."""
    return _elementwise(b, "smax", x, y)


def smallest(b: Builder, x: Value, y: Value) -> Value:
    """The smaller of each two elements, signed."""
    return _elementwise(b, "smin", x, y)


def add_saturated(b: Builder, x: Value, y: Value) -> Value:
    """Signed sums; the extreme value where one does not fit."""
    return _elementwise(b, "sadd.sat", x, y)


def _elementwise(b: Builder, name: str, x: Value, y: Value) -> Value:
    kind = x.type
    full = f"llvm.{name}.v{kind.count}i{kind.element.width}"
    return b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(kind, [kind, kind]), full), [x, y])


def any_of(b: Builder, bits: Value) -> Value:
    """1 if any element of a vector of bits is set, else 0, 64-bit."""
    word = int_of(bits.type.count)
    return b.zext(b.icmp_unsigned("!=", b.bitcast(bits, word), ir.Constant(word, 0)), I64)


def permute_eight(b: Builder, isa: types.Type, x: Value, positions: Value) -> Value:
    """The elements of eight bytes at the given positions (``pshufb`` on x86)."""
    if isa not in (AVX2, AVX512):
        out = ir.Constant(x.type, ir.Undefined)
        for i in range(8):
            at = ir.Constant(I32, i)
            element = b.extract_element(x, b.zext(b.extract_element(positions, at), I32))
            out = b.insert_element(out, element, at)
        return out
    kind = vec(I8, 16)
    wide_x, wide_positions = (b.bitcast(b.zext(b.bitcast(y, I64), ir.IntType(128)), kind) for y in (x, positions))
    function = cgutils.get_or_insert_function(
        b.module, ir.FunctionType(kind, [kind, kind]), "llvm.x86.ssse3.pshuf.b.128"
    )
    permuted = b.call(function, [wide_x, wide_positions])
    return shuffle(b, permuted, permuted, list(range(8)))


def compress(b: Builder, x: Value, mask: Value) -> Value:
    """The elements whose bit in ``mask`` is set, side by side, zeros behind them (AVX-512, 32-bit elements)."""
    kind, bits = x.type, vec(I1, x.type.count)
    function = cgutils.get_or_insert_function(
        b.module, ir.FunctionType(kind, [kind, kind, bits]), f"llvm.x86.avx512.mask.compress.v{kind.count}i32"
    )
    return b.call(function, [x, ir.Constant(kind, None), b.bitcast(mask, bits)])


def population(b: Builder, x: Value) -> Value:
    """Number of set bits of an integer."""
    name = f"llvm.ctpop.i{x.type.width}"
    return b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(x.type, [x.type]), name), [x])


def int_of(bits: int) -> ir.IntType:
    """Integer type of a number of bits."""
    return ir.IntType(bits)
