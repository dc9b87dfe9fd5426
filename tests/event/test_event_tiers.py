"""Choice of the tier, and the code that is generated for processors this machine may not be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from event_cases import TIERS
from llvmlite import binding, ir
from numba import typeof

from qkf_deploy.errors import UsageError
from qkf_deploy.simulators.event import cpu
from qkf_deploy.simulators.event.kernels import gather
from qkf_deploy.simulators.event.kernels import vector_ir as v


@pytest.mark.parametrize("tier", TIERS)
def test_the_variable_forces_a_tier(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cpu.TIER_VARIABLE, tier)
    assert cpu.select().tier == tier


def test_an_argument_wins_over_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cpu.TIER_VARIABLE, "vector")
    assert cpu.select("numba").tier == "numba"


def test_an_unknown_tier_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cpu.TIER_VARIABLE, "sse")
    with pytest.raises(UsageError, match="unknown tier"):
        cpu.select()


def _with_features(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(cpu, "host_features", lambda: frozenset(names))
    monkeypatch.delenv(cpu.TIER_VARIABLE, raising=False)


def test_a_tier_the_cpu_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _with_features(monkeypatch, "avx2", "avx512f", "avx512bw")
    with pytest.raises(UsageError, match="lacks avx512vl, avx512vnni"):
        cpu.select("vnni")


def test_the_fastest_tier_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    _with_features(monkeypatch, "avx2", "avx512f", "avx512bw", "avx512vl", "avx512vnni")
    assert cpu.select() is cpu.VNNI
    _with_features(monkeypatch, "avx2")
    assert cpu.select() is cpu.AVX2
    _with_features(monkeypatch, "neon")
    assert cpu.select() is cpu.PORTABLE


def test_importing_the_engine_loads_no_torch() -> None:
    code = "import sys, qkf_deploy.simulators.event; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _assembly(processor: str, emit: Callable[[ir.IRBuilder, list[ir.Value]], None], arguments: int) -> str:
    """Machine code of a function of 64-bit integers, for an x86-64 processor."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    module = ir.Module("tier")
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [v.I64] * arguments), "kernel")
    b = ir.IRBuilder(function.append_basic_block())
    emit(b, list(function.args))
    b.ret_void()
    target = binding.Target.from_triple("x86_64-unknown-linux-gnu")
    machine = target.create_target_machine(cpu=processor, opt=3)
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    return machine.emit_assembly(parsed)


def test_the_vnni_tier_multiplies_bytes_with_vpdpbusd() -> None:
    wide = v.vec(v.I8, 64)

    def dense(b: ir.IRBuilder, a: list[ir.Value]) -> None:
        acc = v.load(b, a[0], v.vec(v.I32, 16))
        v.store(b, v.quad_dot_add(b, v.AVX512, acc, v.load(b, a[1], wide), v.load(b, a[2], wide)), a[0])

    def words(b: ir.IRBuilder, a: list[ir.Value]) -> None:
        kind = v.vec(v.I16, 32)
        v.store(b, v.word_dot(b, v.AVX512, v.load(b, a[1], kind), v.load(b, a[2], kind)), a[0])

    for processor in ("icelake-server", "cascadelake"):
        assert "vpdpbusd" in _assembly(processor, dense, 3)
        assert "vpmaddwd" in _assembly(processor, words, 3)


@pytest.mark.parametrize(
    ("isa", "processor", "register"), [(v.AVX512, "icelake-server", "zmm"), (v.AVX2, "znver3", "ymm")]
)
def test_gathering_multiplies_interleaved_rows(isa, processor: str, register: str) -> None:
    def emit(b: ir.IRBuilder, a: list[ir.Value]) -> None:
        tile = gather._Tile(b, isa, 2)
        tile.add_segments(gather._Sources(*a[:5]))
        v.store_each(b, [b.load(acc) for acc in tile.acc], a[5])

    code = _assembly(processor, emit, 6)
    assert "vpmaddubsw" in code
    assert "vpunpcklbw" in code
    assert register in code


def test_storage_order_undoes_the_interleaving() -> None:
    """Interleaving a stored tile with itself gives every channel twice, in order."""
    for isa in (cpu.AVX2, cpu.PORTABLE, cpu.VNNI):
        for units in gather.TILE_UNITS:
            order = gather.storage_order(isa.tag, units)
            assert sorted(order) == list(range(32 * units))
            for size in gather.vector_sizes(typeof(isa.tag), units):
                part, order = order[:size], order[size:]
                both = np.concatenate([part, part])
                woven = [both[v.interleave_order(size, half)] for half in range(2)]
                assert np.array_equal(np.concatenate(woven)[::2], np.sort(part))
            assert order.size == 0
    assert np.array_equal(gather.storage_order(cpu.PLAIN.tag, 6), np.arange(192))
