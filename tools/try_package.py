"""The package as a stranger gets it: wheel and sdist built, installed outside the clone, every command tried.

Needs a package index (torch as in ``constraints.txt``)::

    python tools/try_package.py FOLDER                # all of it, about ten minutes on two cores
    python tools/try_package.py FOLDER --keep         # keep the environments and the demo that FOLDER has

``FOLDER/full`` gets ``qkf-deploy[torch,event,data,report]`` and runs the demo; ``FOLDER/base`` gets no extra and runs
every command on what the demo wrote. A command there works, or ends with exit code 4 and names what to install. The
table goes into ``docs/install.md`` between its marks. Exits with 1 if one does neither, or if something is missing.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "install.md"
MARKS = ("<!-- made by tools/try_package.py -->\n", "<!-- end -->")
#: Extra that a command needs without any, or "" where the base install is enough; {d} is the folder of the demo.
COMMANDS = {
    "doctor --no-lava": "",
    "models": "",
    "profiles": "",
    "inspect {d}/digits.qkf": "",
    "widths {d}/digits.int.qkf": "",
    "quantize {d}/digits.qkf -o q.qkf": "",
    "simulate q.qkf {d}/held_out.npz --limit 2 -o two.sqlite": "",
    "simulate q.qkf {d}/held_out.npz --limit 2 --engine event": "event",
    "simulate q.qkf {d}/held_out.npz --limit 2 --engine torch": "torch",
    "evaluate q.qkf {d}/held_out.npz --limit 2 -o run.sqlite": "",
    "evaluate q.qkf {d}/held_out.npz --limit 2 --jobs 2 -o run2.sqlite": "cluster",
    "evaluate q.qkf digits --limit 2 -o run3.sqlite": "data",
    "energy run.sqlite": "",
    "energy q.qkf {d}/held_out.npz --limit 1": "",
    "energy --model spikingformer-8-512 --rates spikingformer-8-512": "",
    "compare two.sqlite run.sqlite": "",
    "map q.qkf --run run.sqlite": "",
    "hardware q.qkf run.sqlite --chip fpga-array": "",
    "verify {d}/digits.int.qkf {d}/held_out.npz --limit 1 --against {d}/qkformer_digits.safetensors": "torch",
    "calibrate {d}/digits.qkf {d}/held_out.npz --bits 4 --limit 2 -o c.qkf": "torch",
    "sensitivity {d}/digits.qkf {d}/held_out.npz --sample 2 --bits 8,4": "data",
    "report run.sqlite -o page.html": "report",
    "run {d}/digits.qkf {d}/held_out.npz --limit 2 -o out": "report",
    "export q.qkf --to onnx -o q.onnx": "onnx",
    "export {d}/digits.qkf --to nir --partitioned -o parts": "nir",
    "export q.qkf --to lava -o lava": "",
    "export run.sqlite --to csv -o tables": "",
    "export run.sqlite --to parquet -o tables2": "parquet",
    "import net.nir -o imported.qkf": "nir",
    "trace {d}/qkformer_digits.safetensors -o t.qkf": "torch",
    "train --arch qkformer-digits --data {d}/held_out.npz --epochs 1 -o w.safetensors": "torch",
    "finetune {d}/qkformer_digits.safetensors --data {d}/held_out.npz --bits 4 --epochs 1 -o f.safetensors": "torch",
    "demo": "data",
    "paper": "torch",
}
#: What an sdist must hold beside the package, and a wheel inside it.
SDIST = (
    "docs/README.md",
    "examples/digits/train.py",
    "tests/conftest.py",
    "CHANGELOG.md",
    "constraints.txt",
    "LICENSE",
)
WHEEL = ("models/qkformer_digits.safetensors", "report/templates/report.css", "hw_models/chips/loihi2.toml", "py.typed")


def sh(*command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)


def build(folder: Path) -> tuple[Path, Path]:
    """Wheel and sdist, built in an isolated environment, with what they must hold."""
    done = sh(sys.executable, "-m", "build", "-q", "--outdir", folder / "dist", ROOT)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    (wheel,), (sdist,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as tar, zipfile.ZipFile(wheel) as archive:
        inside, packed = {name.split("/", 1)[-1] for name in tar.getnames()}, set(archive.namelist())
    missing = [n for n in SDIST if n not in inside] + [n for n in WHEEL if f"qkf_deploy/{n}" not in packed]
    if missing:
        raise SystemExit(f"not in the package: {', '.join(missing)}")
    return wheel, sdist


def environment(folder: Path, wheel: Path, extras: str, keep: bool) -> Path:
    """An empty environment with the wheel in it; gives its ``bin``."""
    if not (keep and folder.exists()):
        sh(sys.executable, "-m", "venv", "--clear", folder)
    what = ["-c", ROOT / "constraints.txt", f"{wheel}{extras}"] if extras else [str(wheel)]
    done = sh(folder / "bin" / "python", "-m", "pip", "-q", "install", *what)
    again = sh(folder / "bin" / "python", "-m", "pip", "-q", "install", "--no-deps", "--force-reinstall", wheel)
    if done.returncode or again.returncode:
        raise SystemExit(done.stderr + again.stderr)
    return folder / "bin"


def megabytes(environment: Path) -> int:
    """What the wheel and what it needs take, without what every environment has."""
    places = next((environment / "lib").glob("python*/site-packages")).iterdir()
    own = [p for p in places if not p.name.startswith(("pip", "setuptools", "pkg_resources", "_distutils"))]
    files = [f for p in own for f in (p.rglob("*") if p.is_dir() else [p])]
    return round(sum(f.stat().st_size for f in files if f.is_file()) / 1e6)


def tried(program: Path, command: str, extra: str, demo: Path, cwd: Path) -> tuple[str, bool]:
    """One row of the table, and whether the command did what it should."""
    done = sh(program, *command.format(d=demo).split(), cwd=cwd)
    hint = next((line.strip() for line in reversed(done.stderr.splitlines()) if "pip install" in line), "")
    good = done.returncode == 0 if not extra else done.returncode == 4 and f"qkf-deploy[{extra}]" in hint
    shown = command.replace("{d}/", "demo/")
    if not good:
        sys.stderr.write(f"{command}: {done.returncode}\n{done.stderr[-600:]}\n")
    said = f"`{hint.removeprefix('try: ')}`" if hint else ""
    return f"| `{shown}` | {done.returncode} | {said} |", good


def main() -> int:
    folder, keep = Path(sys.argv[1]).resolve(), "--keep" in sys.argv
    folder.mkdir(parents=True, exist_ok=True)
    wheel, sdist = build(folder)
    full = environment(folder / "full", wheel, "[torch,event,data,report]", keep)
    base = environment(folder / "base", wheel, "", keep)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    said = work / "demo.txt"
    if not (keep and said.exists()):
        start = time.perf_counter()
        demo = sh(full / "qkf-deploy", "demo", cwd=work)
        if demo.returncode:
            raise SystemExit(demo.stderr)
        said.write_text(f"{time.perf_counter() - start:.0f} s\n{demo.stdout}")
    seconds, *shown = said.read_text().splitlines()
    rows = [tried(base / "qkf-deploy", c, e, work / "out" / "demo", work) for c, e in COMMANDS.items()]
    last = next(line for line in shown if line.startswith("8-bit integer network"))
    text = (
        f"Wheel {wheel.stat().st_size / 1e6:.1f} MB, sdist {sdist.stat().st_size / 1e6:.1f} MB; the base install takes "
        f"{megabytes(folder / 'base')} MB, with all it needs.\n\n"
        f"In an environment with `[torch,event,data,report]`, `qkf-deploy demo` ended after {seconds} with\n\n"
        f"    {last}\n\nIn one without extras, every command on the files of that demo:\n\n"
        "| command | exit code | what it says to install |\n|:--|--:|:--|\n"
    )
    head, _, rest = PAGE.read_text().partition(MARKS[0])
    PAGE.write_text(
        head + MARKS[0] + text + "\n".join(row for row, _ in rows) + "\n" + MARKS[1] + rest.split(MARKS[1])[1]
    )
    return 0 if all(good for _, good in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
