"""`qkf-deploy models`: its numbers are measured here again, and the documentation shows its output."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import qkf_deploy as qd
from qkf_deploy.cli import group
from qkf_deploy.converters.torch.factory import call_factory
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.models import build
from qkf_deploy.models.zoo import ENTRIES, Entry
from qkf_deploy.passes.twin import ann_twin

DOCS = Path(__file__).parents[2] / "docs"
WORKS = {e.name: e for e in ENTRIES if e.state == "works"}
#: Small enough to trace in a test.
TRACED = ("qkformer-4-384-cifar10", "Max-Former CIFAR", "PLIF-Net MNIST")


def factory_arguments(entry: Entry) -> dict[str, str]:
    words = entry.arguments.split()
    return dict(word.split("=", 1) for flag, word in itertools.pairwise(words) if flag == "--factory-arg")


def model_of(entry: Entry) -> torch.nn.Module:
    if entry.source == "checkpoint":
        return build(entry.name)
    return call_factory(entry.source, factory_arguments(entry), {})[0]


@pytest.mark.parametrize("name", WORKS)
def test_parameters(name: str) -> None:
    with torch.device("meta"):
        model = model_of(WORKS[name])
    assert sum(p.numel() for p in model.parameters()) == WORKS[name].parameters


@pytest.mark.parametrize("name", TRACED)
def test_traced_numbers(name: str) -> None:
    entry = WORKS[name]
    graph = qd.trace(model_of(entry), image_size=entry.image_size, time_steps=entry.time_steps)
    assert graph.time_steps == entry.time_steps
    assert ann_twin(graph).macs == entry.macs


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.state == "refused"], ids=lambda e: e.name)
def test_refused(entry: Entry) -> None:
    with pytest.raises(UnsupportedError):
        qd.trace(entry.source, image_size=64, time_steps=2)


def test_the_command_prints_every_model() -> None:
    done = CliRunner().invoke(group, ["models", "--format", "json"])
    assert done.exit_code == 0
    rows = json.loads(done.output)["rows"]
    assert [row["model"] for row in rows] == [e.name for e in ENTRIES]
    commands = CliRunner().invoke(group, ["models", "--commands"])
    assert commands.output.count("qkf-deploy trace ") == len(WORKS)


def test_the_documentation_shows_its_output() -> None:
    text = (DOCS / "models.md").read_text(encoding="utf-8")
    assert CliRunner().invoke(group, ["models", "--format", "md"]).output.strip() in text
