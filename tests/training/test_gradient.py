"""The surrogate gradient of the integer neuron is that of SpikingJelly's."""

from __future__ import annotations

import pytest
import torch
from spikingjelly.activation_based import neuron, surrogate

from qkf_deploy.training.spiking import Membrane, _Fire

THETA = torch.tensor([32.0, 48.0, 96.0]).reshape(3, 1)


def gradients(drive: torch.Tensor, soft: bool, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the weighted spikes: to the drive, to the thresholds."""
    x, theta = drive.clone().requires_grad_(), THETA.clone().requires_grad_()
    (_Fire.apply(x, theta, Membrane(torch.tensor(0.5), 1.0, soft, 1.0)) * weights).sum().backward()
    assert x.grad is not None
    assert theta.grad is not None
    return x.grad, theta.grad


@pytest.mark.parametrize("soft", [False, True])
def test_the_gradient_through_time_is_the_published_one(soft: bool) -> None:
    torch.manual_seed(0)
    drive = 16.0 * torch.randint(-4, 7, (4, 5, 3, 2))  # halved three times it is still whole: nothing is floored
    weights = torch.randn(drive.shape)
    real = (drive / THETA).requires_grad_()
    published = neuron.LIFNode(
        tau=2.0, decay_input=False, v_reset=None if soft else 0.0, surrogate_function=surrogate.Sigmoid(4.0),
        detach_reset=True, step_mode="m",
    )  # fmt: skip
    spikes = published(real)
    assert 0.1 < spikes.mean() < 0.6
    (spikes * weights).sum().backward()
    assert real.grad is not None
    assert torch.allclose(gradients(drive, soft, weights)[0], real.grad / THETA, rtol=1e-4, atol=1e-7)


def test_a_threshold_counts_against_the_drive() -> None:
    torch.manual_seed(1)
    drive = torch.randint(-60, 120, (1, 5, 3, 2)).float()
    to_drive, to_theta = gradients(drive, False, torch.randn(drive.shape))
    assert torch.allclose(to_theta, -to_drive.sum((0, 1, 3)).reshape(3, 1), rtol=1e-4)
