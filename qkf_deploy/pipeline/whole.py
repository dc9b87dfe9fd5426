"""From a checkpoint to a page in one call."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from qkf_deploy.errors import UsageError
from qkf_deploy.evaluation.run import Outcome
from qkf_deploy.ir import Graph
from qkf_deploy.keywords import keywords, part, takes
from qkf_deploy.options import EngineOptions, EvaluateOptions, TraceOptions
from qkf_deploy.pipeline.costs import load_chip, load_profile, write_report
from qkf_deploy.pipeline.evaluating import evaluate_into
from qkf_deploy.pipeline.networks import fold, load, quantize, save, trace
from qkf_deploy.pipeline.on_chip import on_chip
from qkf_deploy.pipeline.record import Asked, Record, network_name, origin, sha256
from qkf_deploy.pipeline.run_options import RunOptions
from qkf_deploy.pipeline.summarizing import load_runs
from qkf_deploy.report.html import check_installed
from qkf_deploy.runs.content import RunFile
from qkf_deploy.writing import write_atomically


@dataclass(frozen=True)
class WholeRun:
    """What a whole run made.

    Attributes:
        folder: where it is.
        runs: the evaluations by name, ``float`` first: read when they are asked for.
        outcomes: how they ended.
        chips: the integer networks on a chip, as `hardware --format json` writes it; none without a chip.
        unchanged: names of files that were there already, made from the same.
        earlier: names of networks and results that an earlier run with other options left there; not on the page.
    """

    folder: Path
    runs: Mapping[str, RunFile]
    outcomes: Mapping[str, Outcome]
    chips: tuple[Path, ...]
    unchanged: tuple[str, ...]
    earlier: tuple[str, ...]

    @property
    def report(self) -> Path:
        """The page."""
        return self.folder / "report.html"


@takes(RunOptions)
def run(source: str | Path, data: str | Path, output: str | Path, options: RunOptions) -> WholeRun:
    """Trace, fold, quantize, evaluate, price and report; what is there already from the same is kept.

    The folder has ``run.toml`` (what was asked for), ``commands.sh`` (the single commands that make the same),
    ``float.qkf`` and ``8bit.qkf`` ..., their evaluations ``float.sqlite`` ..., with a chip ``8bit.chip.json`` ..., and
    ``report.html``.

    Args:
        source: as :func:`trace` takes it by path or name, or a float `.qkf` file.
        data: as :func:`evaluate` takes it.
        output: a new folder, or the one of an earlier run.

    Raises:
        UsageError: an integer network, no bits, options that do not fit, or an unknown chip.
        InputError: a folder with files of something else; else as :func:`trace`, :func:`quantize`, :func:`evaluate`.
        MissingComponent: jinja2, or what the network needs, is not installed.
    """
    if not options.widths:
        raise UsageError("no bits", hint="--bits 8")
    check_installed()  # it and a wrong profile are found before the long part
    for name in options.profiles:
        load_profile(name)
    if options.chip is not None:
        load_chip(options.chip)
    elif options.chip_images != RunOptions.chip_images:
        raise UsageError("images for a chip, and no chip", hint="name one with --chip")
    asked, folder = Asked.of(source, data, options), Path(output)
    with _not_in_vain(folder):
        return _Making(asked, Record.begin(folder, asked)).all()


@contextmanager
def _not_in_vain(folder: Path) -> Generator[None]:
    """A new folder does not stay if the block ends with an error before there is a single result."""
    there, fresh = folder.exists(), not folder.is_dir() or not any(folder.iterdir())
    try:
        yield
    except BaseException:
        if fresh and folder.is_dir() and not any(folder.glob("*.sqlite")):
            for path in folder.iterdir():
                path.unlink()
            if not there:
                folder.rmdir()
        raise


class _Making:
    """The steps of a whole run, each of which adds to its record."""

    def __init__(self, asked: Asked, record: Record) -> None:
        self._asked, self._record, self._unchanged = asked, record, list[str]()

    def all(self) -> WholeRun:
        options = self._asked.options
        self._float()
        for bits in options.widths:
            self._integer(bits)
        names = [network_name(bits) for bits in (None, *options.widths)]
        outcomes = {name: self._evaluated(name) for name in names}
        files = [self._record.folder / f"{name}.sqlite" for name in names]
        runs = dict(zip(names, load_runs(files).values(), strict=True))
        chips = tuple(self._on_chip(name, runs[name]) for name in names[1:] if options.chip is not None)
        self._page(runs, names, chips)
        return WholeRun(self._record.folder, runs, outcomes, chips, tuple(self._unchanged), self._earlier(names, chips))

    def _earlier(self, names: list[str], chips: tuple[Path, ...]) -> tuple[str, ...]:
        found = (path.name for pattern in _RESULTS for path in self._record.folder.glob(pattern))
        now = {f"{name}.{ending}" for name in names for ending in ("qkf", "sqlite")} | {path.name for path in chips}
        return tuple(sorted(set(found) - now))

    def _begins(self, what: str) -> None:
        if self._asked.options.stage is not None:
            self._asked.options.stage(what)

    def _make(self, what: str, name: str, origin: str | None, write: Callable[[Path], None]) -> None:
        def begin(path: Path) -> None:
            self._begins(what)
            write(path)

        self._record, written = self._record.make(name, origin, begin)
        if not written:
            self._unchanged.append(name)

    def _float(self) -> None:
        source, given = self._asked.source, part(self._asked.options, TraceOptions)
        what = f"tracing {source}"
        if source.endswith(".qkf"):
            self._make(what, "float.qkf", _of_files("copy", source), lambda path: save(_floating(source), path))
        else:
            # What the code of a factory imports is not known, so it is traced every time.
            made_from = _of_files("trace", source, given) if Path(source).is_file() else None
            self._make(what, "float.qkf", made_from, lambda path: save(fold(trace(source, **given)), path))
        if self._asked.options.tell is not None:
            for line in load(self._record.folder / "float.qkf").assumed:
                self._asked.options.tell(line)

    def _integer(self, bits: int) -> None:
        floating = self._record.folder / "float.qkf"
        self._make(
            f"quantizing to {bits} bits",
            f"{network_name(bits)}.qkf",
            origin("quantize", sha256(floating), bits),
            lambda path: save(quantize(load(floating), bits), path),
        )

    def _evaluated(self, name: str) -> Outcome:
        self._begins(f"evaluating {name}")
        shared = {k.name: getattr(self._asked.options, k.name) for k in keywords(EvaluateOptions) if k.name in _SHARED}
        options = EvaluateOptions(**shared, force=True)
        network, stored = (self._record.folder / f"{name}.{ending}" for ending in ("qkf", "sqlite"))
        return evaluate_into(network, self._asked.data, stored, options, go_on=True)

    def _on_chip(self, name: str, run: RunFile) -> Path:
        options, folder = self._asked.options, self._record.folder
        chip, images = str(options.chip), options.chip_images
        network, stored, file = folder / f"{name}.qkf", folder / f"{name}.sqlite", f"{name}.chip.json"
        about = sha256(Path(chip)) if Path(chip).is_file() else chip
        made_from = origin("hardware", sha256(network), run.data, list(run.indices), about, images)
        engine = part(options, EngineOptions)

        def write(path: Path) -> None:
            write_atomically(path, on_chip(network, stored, chip, images, **engine).text("json").encode())

        self._make(f"{name} on {chip}", file, made_from, write)
        return folder / file

    def _page(self, runs: Mapping[str, RunFile], names: list[str], chips: tuple[Path, ...]) -> None:
        self._begins("writing the page")
        beside = {name: runs[name] for name in names if name != names[1]}
        write_report(runs[names[1]], self._record.folder / "report.html", self._asked.options.profiles, beside, chips)


#: What a run leaves for each of its networks.
_RESULTS = ("*.qkf", "*.sqlite", "*.chip.json")
#: Options that the evaluations take over.
_SHARED = {keyword.name for keyword in keywords(RunOptions)} - {"bits"}


def _of_files(step: str, source: str, *options: object) -> str:
    return origin(step, sha256(Path(source)), *options)


def _floating(source: str) -> Graph:
    graph = load(source)
    if graph.arithmetic != "float":
        raise UsageError(
            "is an integer network", where=source, hint="name the float network or the checkpoint, or use `evaluate`"
        )
    return graph
