"""Graph, Run, Ledger, EnergyReport and Agreement on one screen, in a notebook, and as data."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from netbuild import Net, random_pixels, small_transformer

import qkf_deploy as qd
from qkf_deploy.display.overview import ROWS, SelfDescribing
from qkf_deploy.errors import GraphError, InputError
from qkf_deploy.evaluation.agreement import Agreement, LayerAgreement
from qkf_deploy.hw_models.pricing import EnergyReport
from qkf_deploy.ir import Graph
from qkf_deploy.ledger import Ledger
from qkf_deploy.ops import Add
from qkf_deploy.report.formats import to_json
from qkf_deploy.simulators.run import Run

LABELS = np.array([3, 0, 1, 2, 1])


@pytest.fixture(scope="module")
def graph() -> Graph:
    return qd.quantize(small_transformer(1), 8)


@pytest.fixture(scope="module")
def run(graph: Graph) -> Run:
    return qd.simulate(graph, random_pixels(3, (3, 9, 7), 5), record=["qk_gate"], engine="reference")


@pytest.fixture(scope="module")
def report(run: Run) -> EnergyReport:
    return qd.price(run.ledger, "exact-fp32")


@pytest.fixture(scope="module")
def agreement(graph: Graph) -> Agreement:
    return qd.compare(graph, qd.fold(small_transformer(1)), random_pixels(3, (3, 9, 7), 2))


def chain(nodes: int, prefix: str = "") -> Graph:
    """A network of many small additions."""
    net = Net(0, (1, 1, 1))
    last = net.lif(f"{prefix}lif", net.conv(f"{prefix}conv", "input", 1, kernel=1))
    for index in range(nodes):
        last = net.add(f"{prefix}{index}", Add(), last, f"{prefix}lif")
    net.head(last, classes=2)
    return net.build(1)


@pytest.fixture(scope="module")
def every(graph: Graph, run: Run, report: EnergyReport, agreement: Agreement) -> dict[str, SelfDescribing]:
    return {"graph": graph, "run": run, "ledger": run.ledger, "energy": report, "agreement": agreement}


@pytest.mark.parametrize("name", ["graph", "run", "ledger", "energy", "agreement"])
def test_one_screen(every: dict[str, SelfDescribing], name: str) -> None:
    shown = str(every[name])
    assert 5 < len(shown.splitlines()) <= 40
    assert "e+" not in shown
    assert repr(every[name]).startswith(f"<{type(every[name]).__name__}: ")
    assert "\n" not in repr(every[name])
    page = every[name]._repr_html_()
    assert page.count("<table>") == page.count("</table>") == 1
    for row in shown.splitlines()[4:8]:
        assert row.split()[0].replace("<", "&lt;") in page


def test_what_a_graph_says(graph: Graph) -> None:
    shown = str(graph).splitlines()
    assert shown[0] == f"integer network, T = 4, direct input 3 x 9 x 7, {len(graph.nodes)} nodes, " + (
        f"{graph.parameter_count():,} parameters"
    )
    macs = sum(n.op.static_cost(graph.input_types(n), n.params).dense_macs for n in graph)
    (total,) = [line for line in shown if line.startswith("  total")]
    assert total.split() == ["total", f"{graph.parameter_count():,}", f"{macs:,}"]
    assert f"{ROWS} of {len(graph.nodes)} nodes, those with most parameters; the totals are of all" in shown
    rows = [line.split()[0] for line in shown[4 : 4 + ROWS]]
    assert rows == [n for n in graph.nodes if n in rows]  # in network order
    kept = [sum(p.size for p in graph[n].params.values()) for n in rows]
    left = [sum(p.size for p in n.params.values()) for n in graph if n.name not in rows]
    assert min(kept) >= max(left)


def test_notices_are_shown() -> None:
    noticed = replace(chain(1), notices=("decay rounded",))
    assert "decay rounded" in str(noticed)
    assert "decay rounded" in noticed._repr_html_()


def test_a_graph_that_is_not_valid_can_be_looked_at(graph: Graph) -> None:
    broken = replace(graph, nodes={n: v for n, v in graph.nodes.items() if n != "embed_conv"})
    assert "not a valid graph: embed_lif: reads an unknown node: 'embed_conv'" in str(broken)
    empty = Graph({}, 4)
    assert "0 nodes" in repr(empty)
    assert "not a valid graph" in str(empty)
    assert "<tbody>\n</tbody>" in empty._repr_html_()
    with pytest.raises(GraphError):
        empty.to_pandas()


def test_ten_thousand_nodes_fit_one_screen() -> None:
    large = chain(10_000)
    assert len(str(large).splitlines()) <= 40
    assert len(large._repr_html_()) < 10_000
    assert "of 10,008 nodes" in str(large)


def test_names_are_escaped_shortened_and_may_be_empty() -> None:
    for prefix in ("<script>alert(1)</script>", "x" * 5000, "\x1b[31m\n", ""):
        named = chain(1, prefix)
        assert max(map(len, str(named).splitlines())) < 300
        assert len(str(named).splitlines()) < 20
        assert "\x1b" not in str(named)
        page = named._repr_html_()
        assert "<script>" not in page
        assert "\x1b" not in page
    net = Net(0, (1, 1, 1))
    net.head(net.lif("", "input"), classes=2)
    unnamed = net.build(2)
    ledger = qd.simulate(unnamed, np.ones((1, 1, 1)), engine="reference").ledger
    assert ledger.layers[0].name == ""
    for shown in (unnamed, ledger, qd.price(ledger)):
        assert len(str(shown).splitlines()) > 5
        assert "neuron" in shown._repr_html_()


def test_graph_data(graph: Graph) -> None:
    data = json.loads(to_json(graph.to_dict()))
    assert [n["name"] for n in data["nodes"]] == list(graph.nodes)
    assert data["nodes"][1]["inputs"] == [o.node for o in graph[data["nodes"][1]["name"]].inputs]
    assert data["parameters"] == graph.parameter_count()


def test_graph_frame(graph: Graph) -> None:
    pytest.importorskip("pandas")
    frame = graph.to_pandas().set_index("name")
    assert list(frame.index) == list(graph.nodes)
    conv = graph["embed_conv"]
    assert frame.loc["embed_conv", "parameters"] == conv.params["weight"].size + conv.params["bias"].size
    assert frame.loc["embed_conv", "dense_macs_per_step"] == 8 * 5 * 4 * 3 * 9
    assert frame.loc["ssa_kv", "inputs"] == ["ssa_k_lif", "ssa_v_lif"]
    assert frame.attrs["time_steps"] == 4


def test_what_a_run_says(run: Run) -> None:
    lines = str(run).splitlines()
    assert lines[0] == "run, integer network, T = 4, 5 images, output 4"
    best = int(np.argmax(run.logits[0]))
    assert lines[4].split()[:3] == ["0", str(best), f"{run.logits[0, best]:.4g}"]
    assert "recorded values of 1 node: qk_gate" in lines


def test_a_run_of_many_images_shows_the_first(run: Run) -> None:
    many = replace(run, logits=np.repeat(run.logits, 60, 0), ledger=replace(run.ledger, images=300))
    assert len(str(many).splitlines()) <= 40
    assert f"the first {ROWS} images of 300" in str(many)


def test_run_data(run: Run) -> None:
    data = json.loads(to_json(run.to_dict()))
    assert data["predicted"] == run.logits.argmax(-1).tolist()
    assert np.array_equal(data["logits"], run.logits)
    assert Ledger.from_dict(data["ledger"]) == run.ledger


def test_run_frame(run: Run) -> None:
    pytest.importorskip("pandas")
    frame = run.to_pandas()
    assert list(frame.columns) == ["image", "predicted", "logit_0", "logit_1", "logit_2", "logit_3"]
    assert np.array_equal(frame.iloc[:, 2:].to_numpy(), run.logits)
    assert frame["predicted"].tolist() == run.predicted.tolist()


def scored(run: Run, logits: Any) -> Run:
    logits = np.array(logits, float)
    return replace(run, logits=logits, raw_output=logits[None] if logits.ndim == 2 else logits)


def test_accuracy_by_hand(run: Run) -> None:
    four = scored(run, [[0, 1, 0], [2, 1, 2], [0, 0, 9], [-3, -2, -1]])
    assert four.predicted.tolist() == [1, 0, 2, 2]  # the first among equals
    assert four.accuracy([1, 2, 2, 2]) == 0.75
    assert four.accuracy(np.array([0, 1, 0, 0], np.uint8)) == 0
    assert four.accuracy(four.predicted) == 1


def test_without_a_readout_the_steps_are_summed(run: Run) -> None:
    steps = scored(run, [[[1, 0]], [[0, 3]], [[1, 0]]])
    assert steps.class_logits.tolist() == [[2, 3]]
    assert steps.predicted.tolist() == [1]
    assert steps.accuracy([1]) == 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], r"labels are int64 of shape \(2,\), the run has 5 images"),
        ([[0, 1, 2, 3, 0]], r"of shape \(1, 5\)"),
        (3, r"of shape \(\)"),
        ([0, 1, 2, 3, 4], "label 4 of image 4 is not a class\n  try: classes are 0 to 3"),
        ([0, -1, 2, 3, 0], "label -1 of image 1 is not a class"),
        ([0.0, 1, 2, 3, 0], "labels are float64"),
        ([True, True, False, True, True], "labels are bool"),
        (["a", "b", "c", "d", "e"], "labels are <U1"),
    ],
)
def test_labels_that_cannot_be_scored(run: Run, labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run.accuracy(labels)


def test_labels_of_unequal_length(run: Run) -> None:
    with pytest.raises(InputError, match="labels cannot be read as an array"):
        run.accuracy([[1], [1, 2]])  # type: ignore[list-item]


def test_logits_that_cannot_be_scored(run: Run) -> None:
    with pytest.raises(InputError, match="the logits of image 1 are not finite"):
        scored(run, [[0, 1], [np.nan, 1]]).accuracy([1, 1])
    with pytest.raises(InputError, match="a run without images"):
        scored(run, np.zeros((0, 3))).accuracy(np.zeros(0, int))


def test_an_output_that_is_a_map(run: Run) -> None:
    map_ = replace(run, logits=np.zeros((5, 2, 3, 3)), raw_output=np.zeros((1, 5, 2, 3, 3)))
    with pytest.raises(InputError, match="not one number per class"):
        map_.accuracy(LABELS)
    assert "output 2 x 3 x 3" in str(map_)
    assert map_.to_dict()["predicted"] is None


def test_what_a_ledger_says(run: Run) -> None:
    shown = str(run.ledger)
    assert shown.splitlines()[0].startswith("exact counts, integer network, T = 4, direct input, 5 images, ")
    (total,) = [line.split() for line in shown.splitlines() if line.startswith("  total")]
    mean = run.ledger.total("mac") / 5
    assert f"{mean / 1000:.4g}" in total
    assert "gate_ands" in shown
    assert "not shown" not in shown


def test_ledger_frame(run: Run) -> None:
    pd = pytest.importorskip("pandas")
    frame = run.ledger.to_pandas().set_index("name")
    for layer in run.ledger:
        for name in frame.columns.intersection(["ac_unary", "mac", "gate_ands", "weight_bytes"]):
            cell = frame.loc[layer.name, name]
            assert cell is pd.NA if name not in layer.counts else cell == layer.total(name)
    assert frame["ac_unary"].sum() == run.ledger.total("ac_unary")
    assert frame.attrs == {"images": 5, "time_steps": 4}
    assert frame.loc["qk_mask", "input_kinds"] == ("spike", "spike")


def test_an_empty_ledger() -> None:
    empty = Ledger(1, 0, "float", "direct", ())
    assert "0 images, 0 layers" in str(empty)
    assert "<tbody>\n</tbody>" in empty._repr_html_()
    pytest.importorskip("pandas")
    assert "name" in empty.to_pandas().columns


def test_what_an_energy_report_says(report: EnergyReport) -> None:
    lines = str(report).splitlines()
    assert lines[0] == f"Energy per image, profile exact-fp32: {report.profile.title}"
    assert any(line.startswith("energy per image  ") and "sd over 5 images" in line for line in lines)
    assert any(line.startswith("not priced: bias_adds ") for line in lines)


def test_energy_frame_is_per_image(report: EnergyReport) -> None:
    pytest.importorskip("pandas")
    frame = report.to_pandas().set_index("layer")
    row = report["pool_conv"]
    assert frame.loc["pool_conv", "energy_per_image_pj"] == float(Fraction(row.energy_pj) / 5)
    assert frame.loc["pool_conv", "sops_exact_per_image"] == row.sops_exact / 5
    parts = [c for c in frame.columns if c.endswith("_energy_per_image_pj")]
    assert len(parts) == sum(any(q in r.energy_by_quantity_pj for r in report.layers) for q in report.profile.prices)
    assert frame[parts].sum().sum() == pytest.approx(float(report.mean_energy_pj), rel=1e-12)
    assert frame.attrs == {"profile": "exact-fp32", "images": 5, "time_steps": 4}


def test_energy_data_adds_up(report: EnergyReport) -> None:
    data = report.to_dict()
    assert sum((row["energy_pj_sum"] for row in data["layers"]), Decimal(0)) == data["energy_pj_sum"]
    assert sum(row["energy_pj"] for row in data["layers"]) == data["energy_pj"] == report.mean_energy_pj


def test_what_an_agreement_says(agreement: Agreement) -> None:
    lines = str(agreement).splitlines()
    assert lines[0] == (
        f"agreement on 2 images: same class on {agreement.same_class}, {agreement.differ_free:,} of "
        f"{agreement.outputs:,} neuron outputs differ"
    )
    pytest.importorskip("pandas")
    frame = agreement.to_pandas()
    assert frame["differ_free"].sum() == agreement.differ_free
    assert frame["name"].tolist() == [layer.name for layer in agreement.layers]
    data = json.loads(json.dumps(agreement.to_dict()))
    assert [LayerAgreement(**row) for row in data["layers"]] == list(agreement.layers)
    assert data["predicted"] == agreement.predicted.tolist()


def test_an_agreement_of_many_layers_shows_those_that_differ_most() -> None:
    layers = tuple(LayerAgreement(f"layer{i}", 100, 10, 0, 0, i % 7) for i in range(200))
    shown = str(Agreement(layers, 0.0, np.zeros(3, int), np.zeros(3, int)))
    assert len(shown.splitlines()) <= 40
    assert "20 of 200 layers, those that differ most" in shown
    assert {line.split()[-1] for line in shown.splitlines() if "layer1" in line} == {"6"}


@pytest.mark.parametrize("make", [lambda: chain(195), lambda: qd.quantize(chain(195), 8)], ids=["float", "integer"])
def test_two_hundred_nodes(make: Callable[[], Graph]) -> None:
    large = make()
    run = qd.simulate(large, random_pixels(0, (1, 1, 1), 3), engine="reference")
    for shown in (large, run, run.ledger, qd.price(run.ledger, "exact-fp32")):
        assert len(str(shown).splitlines()) <= 40
        assert shown._repr_html_().count("<tr>") <= ROWS + 2


def test_a_notebook_needs_pandas_only_for_frames() -> None:
    script = (
        "import sys\nsys.modules['pandas'] = None\nimport qkf_deploy as qd\nfrom qkf_deploy.ir import Graph\n"
        "graph = Graph({}, 1)\nstr(graph), graph._repr_html_(), graph.to_dict()\n"
        "from qkf_deploy.ledger import Ledger\n"
        "try:\n    Ledger(1, 0, 'float', 'direct', ()).to_pandas()\n"
        "except qd.QkfError as error:\n    print(type(error).__name__, error.hint)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "MissingComponent pip install 'qkf-deploy[notebook]'\n"
