"""The command line: happy paths, formats that parse, results and notices apart, and every kind of bad input."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import qkf_deploy as qd
from qkf_deploy.cli import run
from qkf_deploy.converters.event_streams import read_events
from qkf_deploy.datasets.digits import Digits
from qkf_deploy.ir import Graph
from qkf_deploy.models import build


@pytest.fixture(scope="module")
def files(
    tmp_path_factory: pytest.TempPathFactory, digits_float: Graph, digits_int8: Graph, digits_data: Digits
) -> Path:
    """A folder with the digits networks, images as array, archive and files, and the checkpoint."""
    folder = tmp_path_factory.mktemp("cli")
    qd.save(digits_float, folder / "net.qkf")
    qd.save(digits_int8, folder / "net.int.qkf")
    np.save(folder / "images.npy", digits_data.test_images[:4])
    np.savez(folder / "images.npz", images=digits_data.test_images[:4], labels=digits_data.test_labels[:4])
    for index in range(4):
        place = folder / "images" / str(int(digits_data.test_labels[index]))
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits_data.test_images[index, 0]).save(place / f"{index}.png")
    return folder


class Shell:
    """Runs a command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object, code: int = 0) -> tuple[str, str]:
        found = run([str(a) for a in arguments])
        out, err = self.capsys.readouterr()
        assert found == code, err
        return out, err

    def fails(self, *arguments: object, code: int = 3) -> str:
        """The error of a command that must fail with nothing on stdout, one sentence and no traceback."""
        out, err = self(*arguments, code=code)
        assert out == ""
        assert "Traceback" not in err
        lines = err.strip().splitlines()
        assert lines[0].startswith("error: ")
        assert all(line.startswith(("error: ", "  ")) for line in lines), err
        return err.strip()


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


REFERENCE = ("--engine", "reference")


def test_from_checkpoint_to_energy(
    shell: Shell, tmp_path: Path, digits_checkpoint: Path, files: Path, digits_int8: Graph
) -> None:
    out, _ = shell("trace", digits_checkpoint, "-o", tmp_path / "net.qkf")
    neurons = sum(n.op.kind == "integer_neuron" for n in digits_int8)
    assert out.startswith(f"{tmp_path / 'net.qkf'}: ")
    assert f"{neurons} neuron layers, " in out
    assert out.endswith("T=4\n")
    out, _ = shell("quantize", tmp_path / "net.qkf", "--bits", 8, "-o", tmp_path / "int.qkf")
    assert "integer graph, bits=8 first_bits=8, widest accumulator" in out
    again = qd.load(tmp_path / "int.qkf")
    for node in digits_int8:
        assert all(np.array_equal(v, again[node.name].params[k]) for k, v in node.params.items())
    out, err = shell("simulate", tmp_path / "int.qkf", files / "images.npz", *REFERENCE, "-o", tmp_path / "run.sqlite")
    assert "accuracy: 4 of 4 (100.00 %)" in out
    assert f"wrote {tmp_path / 'run.sqlite'}" in err
    direct, _ = shell("energy", tmp_path / "int.qkf", files / "images.npz", *REFERENCE, "--format", "json")
    from_run, _ = shell("energy", tmp_path / "run.sqlite", "--format", "json")
    assert json.loads(direct) == json.loads(from_run)


def test_results_and_notices_are_apart(shell: Shell, tmp_path: Path, files: Path) -> None:
    between = np.load(files / "images.npy").astype(np.float64) / 255 * 1.37 / 2
    np.save(tmp_path / "floats.npy", between)
    out, err = shell("simulate", files / "net.int.qkf", tmp_path / "floats.npy", *REFERENCE, "--format", "json")
    assert err.startswith("note: float images are not made of bytes: rounded")
    assert len(json.loads(out)["rows"]) == 4


@pytest.mark.parametrize("command", ["simulate", "inspect", "energy", "verify", "widths"])
def test_formats_parse(shell: Shell, files: Path, digits_checkpoint: Path, command: str) -> None:
    more: list[object] = []
    if command != "inspect" and command != "widths":
        more = [files / "images.npz", *([] if command == "verify" else REFERENCE)]
    if command == "verify":
        more += ["--against", digits_checkpoint, "--limit", 1]
    data = {f: shell(command, files / "net.int.qkf", *more, "--format", f)[0] for f in ("json", "csv", "md", "table")}
    parsed = json.loads(data["json"])
    assert parsed["schema_version"] == 1
    rows = list(csv.reader(io.StringIO(data["csv"])))
    assert len(rows) > 1
    assert len({len(row) for row in rows if row}) == 1
    if "rows" in parsed:
        assert list(parsed["rows"][0]) == rows[0]
        assert len(parsed["rows"]) == len(rows) - 1
    lines = [line for line in data["md"].splitlines() if line.startswith("|")]
    assert set(lines[1]) <= set("|:-")
    assert len({line.replace("\\|", "").count("|") for line in lines}) >= 1
    assert len(data["table"].splitlines()) > 3


def test_inspect_shows_layers_and_audit(shell: Shell, files: Path) -> None:
    rows = json.loads(shell("inspect", files / "net.int.qkf", "--format", "json")[0])["rows"]
    by_name = {row["layer"]: row for row in rows}
    conv = by_name["patch_embed1.proj1_conv"]
    assert (conv["shape_in"], conv["shape_out"], conv["input"]) == ("8x16x16", "16x16x16", "binary")
    assert conv["dense_macs_per_step"] == 16 * 8 * 9 * 256
    assert conv["border_exact_macs_per_step"] == 16 * 8 * (16 * 3 - 2) ** 2
    assert conv["audit"] == "input binary: additions only"
    out, _ = shell("inspect", files / "net.int.qkf")
    assert "memoryless (OR) neurons: stage1.0.tssa.attn_lif" in out


def test_images_in_every_form(shell: Shell, files: Path) -> None:
    def logits(*source: object) -> list[list[float]]:
        out, _ = shell("simulate", files / "net.int.qkf", *source, *REFERENCE, "--format", "json", "--top", 10)
        rows = sorted(json.loads(out)["rows"], key=lambda r: str(r["image"])[-6:])
        return [[row[f"logit_{i}"] for i in range(1, 11)] for row in rows]

    array = logits(files / "images.npy")
    assert logits(files / "images.npz") == array
    assert sorted(logits(files / "images")) == sorted(array)
    single = next((files / "images").rglob("0.png"))
    assert logits(single) == array[:1]
    out, _ = shell("simulate", files / "net.int.qkf", files / "images", *REFERENCE)
    assert "accuracy: 4 of 4" in out  # folders named like the classes are labels


def test_saved_values(shell: Shell, tmp_path: Path, files: Path) -> None:
    node = "stage1.0.tssa.q_lif"
    saving = ["--save", tmp_path / "out.npz", "--record", node]
    shell("simulate", files / "net.int.qkf", files / "images.npy", *REFERENCE, *saving)
    with np.load(tmp_path / "out.npz") as saved:
        assert saved[node].shape == (4, 4, 16, 256)
        assert saved["logits"].shape == (4, 10)
        assert saved["raw_output"].dtype == np.int64


@pytest.mark.parametrize("options", [(), ("--event-format", "aer"), ("--event-format", "npz", "--threads", 2)])
def test_event_streams(
    shell: Shell, tmp_path: Path, files: Path, digits_int8: Graph, digits_data: Digits, options: tuple[object, ...]
) -> None:
    """What `--events` writes with the default engine is, read back, every layer of the reference engine."""
    out, err = shell("simulate", files / "net.int.qkf", files / "images.npy", "--events", tmp_path / "ev", *options)
    assert "image" in out
    assert "manifest.json" in err
    layers = [n.name for n in digits_int8 if n.type.is_events and n.op.kind not in ("input", "output")]
    wanted = qd.simulate(digits_int8, digits_data.test_images[:4], record=layers, engine="reference").values
    found = read_events(tmp_path / "ev")
    assert set(found) == set(layers)
    assert all(np.array_equal(found[name], wanted[name]) for name in layers)
    assert any(wanted[name].max() > 1 for name in layers)


def test_verify(shell: Shell, files: Path, digits_checkpoint: Path, tmp_path: Path, digits_float: Graph) -> None:
    out, _ = shell("verify", files / "net.int.qkf", files / "images.npy", "--against", digits_checkpoint)
    assert "torch against float graph: logits differ by at most" in out
    assert "same class on 4 of 4 images" in out
    _, err = shell(
        "verify", files / "net.int.qkf", files / "images.npy", "--against", digits_checkpoint, "--exact", code=1
    )
    assert err.startswith(f"error: {files / 'net.int.qkf'}: ")
    assert "neuron outputs of the graph differ" in err
    qd.save(qd.quantize(digits_float, 32), tmp_path / "exact.qkf")
    shell("verify", tmp_path / "exact.qkf", files / "images.npy", "--against", digits_checkpoint, "--exact")


def test_quantize_options(shell: Shell, files: Path, tmp_path: Path) -> None:
    shell(
        "quantize",
        files / "net.qkf",
        "--bits",
        4,
        "--layer-bits",
        "head=16",
        "--first-bits",
        5,
        "-o",
        tmp_path / "q.qkf",
    )
    graph = qd.load(tmp_path / "q.qkf")
    bits = {n.name: n.op.weight_bits for n in graph if "weight" in n.params}
    assert (bits["head"], bits["patch_embed1.proj_conv"], bits["patch_embed1.proj1_conv"]) == (16, 5, 4)


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    """As a user runs it: a process of its own."""
    command = [sys.executable, "-m", "qkf_deploy.cli", "demo", "--output", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "float64 torch model      355 of 360 right = 98.61%" in done.stdout
    assert "float64 graph            355 of 360 right = 98.61%" in done.stdout
    assert "spikes that differ: torch / float graph 0;" in done.stdout
    assert {p.name for p in (tmp_path / "demo").iterdir()} >= {
        "digits.qkf",
        "digits.int.qkf",
        "held_out.npz",
        "run.sqlite",
    }


# -- bad input -------------------------------------------------------------------------------------------------------


class RunsCode:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


class Unsupported(nn.Module):
    """A model with operations that have no spiking form, in two places."""

    T = 2

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GELU())
        self.second = nn.Softmax(dim=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x)).mean((2, 3)))


def wrong_checkpoint(path: Path) -> None:
    torch.save(nn.Linear(3, 4).state_dict(), path)


def truncated(path: Path) -> None:
    torch.save(build("qkformer-digits").state_dict(), path)
    path.write_bytes(path.read_bytes()[:-5000])


def truncated_safetensors(path: Path, checkpoint: Path) -> None:
    path.write_bytes(checkpoint.read_bytes()[:-1000])


CHECKPOINTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (lambda p: None, "no such file\n  try: check the path"),
    "directory": (lambda p: p.mkdir(), "is a directory\n  try: name the checkpoint file inside it"),
    "empty": (lambda p: p.write_bytes(b""), "the file is empty"),
    "text": (lambda p: p.write_text("hello " * 50), "is not a"),
    "truncated": (truncated, "is not a complete torch checkpoint"),
    "other model": (wrong_checkpoint, "no known architecture: looked for patch_embed1.proj_conv.weight"),
    "a list": (lambda p: torch.save([1, 2], p), "holds a list, not a state dict"),
}


@pytest.mark.parametrize(("make", "message"), CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_bad_checkpoints(shell: Shell, tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "weights.pth"
    make(path)
    error = shell.fails("trace", path, "-o", tmp_path / "net.qkf")
    assert error.startswith(f"error: {path}: ")
    assert message in error
    assert "\n  try: " in error
    assert not (tmp_path / "net.qkf").exists()
    assert [p for p in tmp_path.iterdir() if p != path] == []


def test_a_truncated_safetensors_file(shell: Shell, tmp_path: Path, digits_checkpoint: Path) -> None:
    truncated_safetensors(tmp_path / "w.safetensors", digits_checkpoint)
    error = shell.fails("trace", tmp_path / "w.safetensors", "-o", tmp_path / "net.qkf")
    assert "the safetensors file is" in error
    assert not (tmp_path / "net.qkf").exists()


def test_a_pickle_with_code_does_not_run(shell: Shell, tmp_path: Path) -> None:
    path, mark = tmp_path / "evil.pth", tmp_path / "ran"
    path.write_bytes(pickle.dumps({"model": RunsCode(f"touch {mark}")}))
    assert "is not a torch or safetensors checkpoint" in shell.fails("trace", path, "-o", tmp_path / "net.qkf")
    assert not mark.exists()
    assert not (tmp_path / "net.qkf").exists()
    torch.save({"model": RunsCode(f"touch {mark}")}, path)
    assert "loading it could run code" in shell.fails("trace", path, "-o", tmp_path / "net.qkf")
    assert not mark.exists()


def test_unsupported_layers_are_all_listed(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = str(Path(__file__).parent)
    lines = ["import sys", f"sys.path.insert(0, {here!r})", "from test_cli import Unsupported"]
    (tmp_path / "mine.py").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    error = shell.fails(
        "trace", "mine.py:Unsupported", "--image-size", 8, "--in-channels", 1, "-o", tmp_path / "net.qkf"
    )
    assert "operations cannot be lowered" in error
    assert "first.1" in error
    assert "gelu" in error
    assert "softmax" in error
    assert not (tmp_path / "net.qkf").exists()


def test_factories_that_do_not_work(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def build():\n    raise ValueError('no weights here')\n")
    out = tmp_path / "net.qkf"
    assert "the factory raised ValueError: no weights here (at broken.py:2)" in shell.fails(
        "trace", f"{tmp_path / 'broken.py'}:build", "-o", out
    )
    assert "no factory 'other' in it" in shell.fails("trace", f"{tmp_path / 'broken.py'}:other", "-o", out)
    assert "cannot be imported" in shell.fails("trace", "no.such.module:build", "-o", out)
    assert not out.exists()


def test_unknown_architecture_is_a_usage_error(shell: Shell, tmp_path: Path, digits_checkpoint: Path) -> None:
    error = shell.fails("trace", digits_checkpoint, "--arch", "resnet50", "-o", tmp_path / "net.qkf", code=2)
    assert "unknown model 'resnet50'" in error
    error = shell.fails("trace", digits_checkpoint, "--arch", "qkformer-10-384", "-o", tmp_path / "net.qkf")
    assert "does not fit the architecture" in error
    error = shell.fails("trace", digits_checkpoint, "--image-size", 17, "-o", tmp_path / "net.qkf", code=2)
    assert "17" in error
    assert list(tmp_path.iterdir()) == []


def test_bad_images(shell: Shell, tmp_path: Path, files: Path) -> None:
    net = files / "net.int.qkf"
    Image.new("L", (20, 20)).save(tmp_path / "large.png")
    error = shell.fails("simulate", net, tmp_path / "large.png")
    assert error.startswith(
        f"error: {tmp_path / 'large.png'}: the image is 20x20, the network takes 16x16\n  try: add --resize"
    )
    shell("simulate", net, tmp_path / "large.png", "--resize", *REFERENCE)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    assert "not a readable image" in shell.fails("simulate", net, tmp_path / "broken.png")
    assert "no such file or folder" in shell.fails("simulate", net, tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "no images in this folder" in shell.fails("simulate", net, tmp_path / "empty")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    assert "holds object of shape (1,), not numbers" in shell.fails("simulate", net, tmp_path / "objects.npy")
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    assert "say which are the images: --images-key" in shell.fails("simulate", net, tmp_path / "two.npz")
    np.save(tmp_path / "wide.npy", np.zeros((2, 3, 16, 16), np.uint8))
    assert "the network takes (B, 1, 16, 16)" in shell.fails("simulate", net, tmp_path / "wide.npy")


def test_bad_networks(shell: Shell, tmp_path: Path, files: Path) -> None:
    (tmp_path / "corrupt.qkf").write_bytes((files / "net.qkf").read_bytes()[:5000])
    for name in ("corrupt.qkf", "missing.qkf"):
        for command in (["inspect"], ["simulate", files / "images.npy"], ["quantize", "-o", tmp_path / "out.qkf"]):
            error = shell.fails(command[0], tmp_path / name, *command[1:])
            assert error.startswith(f"error: {tmp_path / name}: ")
    assert not (tmp_path / "out.qkf").exists()


def test_outputs_that_cannot_be_written(shell: Shell, files: Path, tmp_path: Path, digits_checkpoint: Path) -> None:
    bad = tmp_path / "no" / "where"
    assert "cannot write here" in shell.fails("trace", digits_checkpoint, "-o", bad / "net.qkf")
    assert "cannot write here" in shell.fails("quantize", files / "net.qkf", "-o", bad / "net.qkf")
    for option in (["-o", bad / "run.sqlite"], ["--save", bad / "a.npz"]):
        _, err = shell("simulate", files / "net.int.qkf", files / "images.npy", *REFERENCE, *option, code=3)
        assert "cannot write here" in err
    assert list(tmp_path.iterdir()) == []


USAGE = [
    (["simulate"], "Missing argument 'NETWORK'"),
    (["quantize", "net.qkf"], "Missing option '-o'"),
    (["nonsense"], "No such command 'nonsense'"),
    (["inspect", "x.qkf", "--format", "xml"], "'xml' is not one of"),
    (["trace", "x.pth", "-o", "y", "--mean", "a,b"], "is not a list of numbers separated by commas"),
    (["trace", "x.pth", "-o", "y", "--time-steps", "0"], "0 is not in the range"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE)
def test_usage_errors(shell: Shell, arguments: list[str], message: str) -> None:
    out, err = shell(*arguments, code=2)
    assert out == ""
    assert message in err


def test_options_that_contradict(shell: Shell, files: Path, tmp_path: Path, digits_checkpoint: Path) -> None:
    out = ["-o", tmp_path / "q.qkf"]
    assert "9 bits per weight" in shell.fails("quantize", files / "net.qkf", "--bits", 9, *out, code=2)
    assert "write NODE=BITS" in shell.fails("quantize", files / "net.qkf", "--layer-bits", "head", *out, code=2)
    assert "nowhere: no such node" in shell.fails("quantize", files / "net.qkf", "--layer-bits", "nowhere=8", *out)
    assert "is an integer graph already" in shell.fails("quantize", files / "net.int.qkf", *out, code=2)
    assert "no engine 'warp'" in shell.fails(
        "simulate", files / "net.int.qkf", files / "images.npy", "--engine", "warp", code=2
    )
    assert "runs integer graphs only" in shell.fails(
        "simulate", files / "net.qkf", files / "images.npy", "--engine", "event", code=2
    )
    assert "write NAME=VALUE" in shell.fails("trace", digits_checkpoint, "--factory-arg", "x", *out, code=2)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_component_exits_with_4(shell: Shell, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qkf_deploy.simulators import engines

    monkeypatch.setattr(engines, "_installed", lambda info: False)
    error = shell.fails("simulate", files / "net.int.qkf", files / "images.npy", "--engine", "event", code=4)
    assert error.endswith('try: pip install "qkf-deploy[event]"')


def test_a_bug_exits_with_70_and_says_what_to_do(shell: Shell, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qkf_deploy import api

    monkeypatch.setattr(api, "load", lambda path: 1 // 0)
    _, err = shell("inspect", files / "net.qkf", code=70)
    assert err.startswith("internal error: ZeroDivisionError")
    assert "Traceback" not in err
    _, err = shell("--debug", "inspect", files / "net.qkf", code=70)
    assert "Traceback" in err


def test_help_of_every_command(shell: Shell) -> None:
    from qkf_deploy.cli import COMMANDS

    out, _ = shell("--help")
    assert all(name in out for name in COMMANDS)
    for name in COMMANDS:
        assert "Usage: qkf-deploy" in shell(name, "--help")[0]


def test_a_command_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evalute"]) == 2
    assert "Did you mean 'evaluate'?" in capsys.readouterr().err
    assert run(["xyzzy"]) == 2
    assert "Did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "at", "found"),
    [("qkf-deploy qu", 1, "plain,quantize"), ("qkf-deploy quantize --sc", 2, "plain,--scales")],
)
def test_shell_completion(words: str, at: int, found: str) -> None:
    wanted = {"_QKF_DEPLOY_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(at)}
    code = "import sys; sys.argv = ['qkf-deploy']; from qkf_deploy.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **wanted}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [found]


def test_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "qkf_deploy", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("qkf-deploy, version")
