"""Which of Lava's own processes are exact, and which are not: the reason why the network is built without them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.dense.process import Dense
from lava.proc.io.sink import RingBuffer as Receiver
from lava.proc.io.source import RingBuffer as Sender
from lava.proc.lif.process import LIFReset

from qkf_deploy import ops

#: u follows its input at once (du = 4095 of 4096), v is halved (dv = 2048 of 4096): the leak of τ = 2.
AT_ONCE, HALF = 4095, 2048


def through(process: Any, into: Any, out: Any, drive: np.ndarray, size: int) -> np.ndarray:
    """Output ``(size, steps)`` of a process for a drive ``(inputs, steps)``."""
    steps = drive.shape[1]
    sender, receiver = Sender(data=drive), Receiver(shape=(size,), buffer=steps)
    sender.s_out.connect(into)
    out.connect(receiver.a_in)
    process.run(RunSteps(num_steps=steps), Loihi2SimCfg(select_tag="fixed_pt"))
    try:
        return receiver.data.get().astype(np.int64)
    finally:
        process.stop()


def dense(weight: np.ndarray, spikes: np.ndarray, **options: int) -> np.ndarray:
    process = Dense(weights=weight, num_message_bits=8, **options)
    return through(process, process.s_in, process.a_out, spikes, weight.shape[0])


def lif(theta: int, drive: np.ndarray, steps: int, **options: int) -> np.ndarray:
    """Spikes of the stock neuron, state cleared every ``steps`` steps."""
    process = LIFReset(
        shape=(drive.shape[0],), du=AT_ONCE, dv=HALF, vth=theta, reset_interval=steps, reset_offset=1, **options
    )
    return through(process, process.a_in, process.s_out, drive, drive.shape[0])


def spikes_of_ours(theta: int, drive: np.ndarray, steps: int) -> np.ndarray:
    neuron = ops.IntegerNeuron(1, 1)
    x = drive.T.reshape(-1, steps, drive.shape[0]).swapaxes(0, 1)  # (T, images, neurons)
    y = neuron.run([x], {"theta": np.array([theta])}, steps)
    return y.swapaxes(0, 1).reshape(-1, drive.shape[0]).T


@pytest.fixture(scope="module")
def synapse() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights with both signs and odd values, counts, and what linear makes of them."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (7, 12))
    counts = rng.integers(0, 4, (12, 6))
    return weight, counts, ops.Linear(8).run([counts.T[:, None]], {"weight": weight}, 6)[:, 0].T


def test_dense_with_nine_bits_is_exact_one_step_late(synapse: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    weight, counts, expected = synapse
    got = dense(weight, counts, num_weight_bits=9)
    np.testing.assert_array_equal(got[:, 0], 0)
    np.testing.assert_array_equal(got[:, 1:], expected[:, :-1])


def test_dense_with_its_default_bits_drops_the_last_bit(synapse: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    weight, counts, expected = synapse
    got = dense(weight, counts)
    assert (got[:, 1:] != expected[:, :-1]).any()
    np.testing.assert_array_equal(got[:, 1:], (weight // 2 * 2 @ counts)[:, :-1])


def drives(theta: int, steps: int, seed: int) -> np.ndarray:
    """Drives near the threshold, 100 neurons, 10 images (a Lava Var is read one value per message)."""
    return np.random.default_rng(seed).integers(-theta // 2, theta + 2, (100, 10 * steps))


@pytest.mark.parametrize(("theta", "steps"), [(7, 1), (7, 4), (2, 6), (7, 6), (1000, 6)])
def test_lif_with_a_bias_of_one_is_exact_up_to_six_steps(theta: int, steps: int) -> None:
    drive = drives(theta, steps, theta + steps)
    expected = spikes_of_ours(theta, drive, steps)
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(lif(theta, drive, steps, bias_mant=1, bias_exp=0), expected)


def test_lif_without_the_bias_misses_ties() -> None:
    drive = drives(7, 4, 1)
    assert (lif(7, drive, 4) != spikes_of_ours(7, drive, 4)).any()


def test_lif_with_the_bias_fails_beyond_six_steps() -> None:
    steps = 8  # six fractional bits of state, and one more is needed per step
    drive = drives(7, steps, 2)
    assert (lif(7, drive, steps, bias_mant=1, bias_exp=0) != spikes_of_ours(7, drive, steps)).any()
