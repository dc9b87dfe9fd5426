"""What is public: importable, documented, typed, in the reference; keywords that are written once and checked."""

from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import pytest
from netbuild import random_pixels, small_transformer

import qkf_deploy as qd
from qkf_deploy import api, options
from qkf_deploy.cli import COMMANDS, group, run
from qkf_deploy.errors import KeywordError, UsageError
from qkf_deploy.keywords import Options, keywords
from qkf_deploy.simulators import engines

ROOT = Path(__file__).parents[1]
FUNCTIONS = [name for name in api.__all__ if inspect.isfunction(getattr(api, name))]
CLASSES = [c for c in vars(options).values() if isinstance(c, type) and issubclass(c, Options) and c is not Options]
#: Steps of the pipeline that a user must find.
STEPS = {
    "trace", "fold", "quantize", "carry", "audit", "widths", "simulate", "measure", "price", "movement", "map_network",
    "write_report", "verify", "compare", "import_nir", "export_nir", "export_onnx", "export_lava", "export_events",
    "export_sana_fe", "check_export", "load", "save", "load_run", "save_run",
}  # fmt: skip


def test_names_stand_once_and_all_steps_are_there() -> None:
    assert qd.__all__ == sorted(set(api.__all__), key=lambda name: (name.islower(), name))
    assert STEPS <= set(qd.__all__) <= set(dir(qd))
    assert all(getattr(qd, name) is getattr(api, name) for name in qd.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'simulated'"):
        _ = qd.simulated  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_documented_and_typed(name: str) -> None:
    function = getattr(qd, name)
    assert function.__doc__
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation not in (inspect.Parameter.empty, Any, "Any"), parameter
        assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL), parameter
        assert f"\n    {parameter.name}: " in inspect.cleandoc(function.__doc__), parameter


@pytest.mark.parametrize("name", FUNCTIONS)
def test_unknown_keywords_are_errors(name: str) -> None:
    function = getattr(qd, name)
    known = list(inspect.signature(function).parameters)[-1]
    with pytest.raises(KeywordError, match=f"{name} has no option '{known}x'\n  try: did you mean '{known}'"):
        function(**{f"{known}x": 1})


def test_a_misspelt_engine_is_not_ignored() -> None:
    graph, images = small_transformer(0), random_pixels(0, (3, 9, 7), 1)
    with pytest.raises(TypeError, match="simulate has no option 'engin'\n  try: did you mean 'engine'"):
        qd.simulate(graph, images, engin="nonsense", thread=99)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="missing a required argument: 'images'"):
        qd.simulate(graph)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="the reference engine has no option 'timeout_s'\n  try: use --engine lava"):
        qd.simulate(graph, images, timeout_s=3.0)
    assert qd.simulate(graph, images, threads=1).logits.shape == (1, 4)  # what auto may use is no error


def test_values_beyond_choices_and_limits_are_errors() -> None:
    graph = small_transformer(0)
    for wrong, message in (
        ({"input": "byte"}, "input: 'byte'\n  try: use bytes or fixed"),
        ({"input_bits": 17}, "input_bits: 17\n  try: use 2 to 16"),
        ({"decay_bits": 0}, "decay_bits: 0\n  try: use 1 to 24"),
        ({"input_bits": "12"}, "input_bits: '12'\n  try: use a whole number"),
        ({"fraction_bits": 2.5}, r"fraction_bits: 2.5\n  try: use a whole number"),
        ({"input_max": "large"}, "input_max: 'large'\n  try: use a number"),
    ):
        with pytest.raises(UsageError, match=message):
            qd.quantize(graph, 8, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="heads: 0\n  try: use 1 or more"):
        options.TraceOptions(heads=(4, 0))
    with pytest.raises(UsageError, match="heads: '6,6'\n  try: use a whole number"):
        options.TraceOptions(heads="6,6")
    with pytest.raises(UsageError, match=r"in_channels: \(3, 3\)\n  try: use a whole number"):
        options.TraceOptions(in_channels=(3, 3))  # type: ignore[arg-type]
    assert options.TraceOptions(heads=np.int64(6), image_size=np.int64(32)).heads == 6  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", CLASSES)
def test_options_have_help_and_defaults_that_pass(cls: type[Options]) -> None:
    cls()
    for keyword in keywords(cls):
        assert keyword.help.text.endswith("."), keyword
        assert keyword.help.text[0].isupper() or keyword.name in ("engine", "input"), keyword


def test_every_engine_option_is_an_option_of_simulate() -> None:
    taken = {name for info in engines.ENGINES.values() for name in info.options}
    assert taken == set(engines.OPTIONS)
    assert taken < {f.name for f in fields(options.SimulateOptions)}


#: Command -> options class whose fields it offers.
OFFERED = {
    "trace": options.TraceOptions,
    "verify": options.VerifyOptions,
    "quantize": options.QuantizeOptions,
    "import": options.ImportOptions,
    "export": options.OnnxOptions,
    "simulate": options.EngineOptions,
    "paper": options.EngineOptions,
    "energy": options.MeasureOptions,
    "report": options.MeasureOptions,
    "map": options.MeasureOptions,
}


@pytest.mark.parametrize("command", OFFERED)
def test_commands_offer_the_same_options(command: str) -> None:
    found = group.get_command(click.Context(group), command)
    assert found is not None
    offered = {p.name: p for p in found.params if isinstance(p, click.Option)}
    for keyword in keywords(OFFERED[command]):
        assert (keyword.name in offered) == keyword.help.command_line
        if keyword.name in offered:
            assert offered[keyword.name].help == keyword.help.text
            value = offered[keyword.name].get_default(click.Context(found))
            assert value == keyword.default or offered[keyword.name].callback is not None


def test_the_reference_is_current() -> None:
    spec = importlib.util.spec_from_file_location("api_reference", ROOT / "tools" / "api_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (ROOT / "docs" / "api.md").read_text()
    assert written == module.reference(), "run `python tools/api_reference.py`"
    assert all(f"## `{name}`" in written for name in qd.__all__)


@pytest.mark.parametrize("code", ["import qkf_deploy", "from qkf_deploy.cli import run; assert run(['--help']) == 0"])
def test_importing_and_help_stay_light(code: str) -> None:
    script = f"{code}\nimport sys\nprint('LOADED', sorted({{'numpy', 'rich', 'networkx', 'PIL'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_what_is_recorded_by_group() -> None:
    graph = qd.quantize(small_transformer(0), 8)
    images = random_pixels(0, (3, 9, 7), 1)
    events = {n.name for n in graph if n.type.is_events and n.op.kind not in ("input", "output")}
    assert set(qd.simulate(graph, images, record="events", engine="reference").values) == events
    gates = {n.inputs[0].node for n in graph if n.op.kind == "mask"}
    assert gates
    assert set(qd.simulate(graph, images, record=["gates"], engine="reference").values) == gates
    single = qd.simulate(graph, images, record="embed_lif", engine="reference")  # one name is not a list of letters
    assert set(single.values) == {"embed_lif"}


def test_a_measured_run_is_the_stored_run(tmp_path: Path) -> None:
    graph, images = qd.quantize(small_transformer(0), 8), random_pixels(0, (3, 9, 7), 3)
    qd.save(graph, tmp_path / "net.qkf")
    np.save(tmp_path / "images.npy", images)
    measured = qd.measure(tmp_path / "net.qkf", tmp_path / "images.npy", engine="reference", limit=2)
    run_ = qd.simulate(graph, images[:2], record="gates", engine="reference")
    qd.save_run(graph, run_, tmp_path / "run.sqlite")
    stored = qd.measure(tmp_path / "run.sqlite", None)
    assert measured.ledger.to_dict() == stored.ledger.to_dict() == run_.ledger.to_dict()
    assert measured.predictions == stored.predictions
    assert measured.gates == stored.gates != ()
    assert [dict(row) for row in measured.widths] == [dict(row) for row in stored.widths]
    assert qd.measure(graph, images, engine="reference").ledger.images == 3
    assert qd.measure(graph, images[0], engine="reference", limit=1).ledger.images == 1
    for source, given in ((tmp_path / "run.sqlite", images), (tmp_path / "net.qkf", None)):
        with pytest.raises(UsageError, match=r"has its counts already|no images to count on"):
            qd.measure(source, given)


def test_report_and_map_take_images_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = qd.quantize(small_transformer(0), 8)
    net, images, page = (str(tmp_path / name) for name in ("net.qkf", "images.npy", "page.html"))
    qd.save(graph, net)
    np.save(images, random_pixels(0, (3, 9, 7), 2))
    assert run(["report", net, images, "-o", page, "--engine", "reference"]) == 0
    assert "2 images of 3x9x7" in Path(page).read_text()
    assert run(["map", net, images, "--engine", "reference", "--limit", "1"]) == 0
    assert "Events between units per image" in capsys.readouterr().out
    assert run(["map", net, images, "--run", "run.sqlite"]) == 2


def test_every_command_has_one_line_of_help() -> None:
    for name in COMMANDS:
        found = group.get_command(click.Context(group), name)
        assert found is not None
        assert found.get_short_help_str(120)
