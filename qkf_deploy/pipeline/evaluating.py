"""Networks on whole data sets."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from qkf_deploy.datasets.dataset import Dataset
from qkf_deploy.datasets.opening import open_dataset
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.evaluation.executors import Executor, executor
from qkf_deploy.evaluation.job import Bench, Job
from qkf_deploy.evaluation.run import SHARD, Outcome, counted, fill
from qkf_deploy.evaluation.sweep import Networks, Point, Progress, joined, points
from qkf_deploy.ir import Graph
from qkf_deploy.ir.digest import digest
from qkf_deploy.keywords import part, takes
from qkf_deploy.options import DataOptions, EngineOptions, EvaluateOptions, ResumeOptions
from qkf_deploy.passes.carry import chained, with_carry
from qkf_deploy.pipeline.inputs import restored
from qkf_deploy.pipeline.networks import load
from qkf_deploy.pipeline.running import default_batch
from qkf_deploy.runs import content
from qkf_deploy.runs.store import Head, Store
from qkf_deploy.simulators import engines

_logger = logging.getLogger(__name__)


@takes(EvaluateOptions)
def evaluate(network: str | Path, data: str | Path, output: str | Path, options: EvaluateOptions) -> Outcome:
    """Run a network on every sample of a data set; each result is stored as soon as it is there.

    With ``steps`` or ``bits`` it is a sweep: the float network at every T with every width, one run each in one file.

    Args:
        network: a `.qkf` file, float or integer.
        data: as :func:`load_images` takes it.
        output: a new file, which :func:`load_run` reads and :func:`resume` goes on with.

    Returns:
        What is stored and what is missing. A sample that cannot be read is stored with its error.

    Raises:
        InputError: a network or data that cannot be used, or a place that cannot be written.
        UsageError, MissingComponent: an engine or executor that cannot be used; a sweep of an integer network.
        UnsupportedError: a network whose T is part of it, or that has no integer form.
        EngineError: a cluster that is gone; what is stored stays.
    """
    return evaluate_into(network, data, Path(output), options)


def evaluate_into(
    network: str | Path, data: str | Path, output: Path, options: EvaluateOptions, *, go_on: bool = False
) -> Outcome:
    """As :func:`evaluate`; with ``go_on`` a run of the same network on the same data is kept and completed."""
    source = load(network)
    reading = DataOptions(**part(options, DataOptions))
    dataset = _opened(data, source, reading)
    carry = {} if options.carry is None else {"carry": options.carry}
    config: dict[str, Any] = {
        "network_path": str(Path(network).absolute()),
        "source": digest(source),
        "data_path": dataset.address,
        "data_options": reading.stored(),
        **carry,
    }
    with Networks(_carried(source, config)) as networks:
        chosen = points(options.steps, options.bits)
        heads = [_head(networks, point, dataset, config, options) for point in chosen]
        kept = go_on and _same(output, heads)
        begun = Store.open(output, write=True) if kept else _begun(output, heads, options.force)
        with executor(options) as where, begun as store:
            ended = _fill(store, networks, dataset, _places(config), where, options)
            if ended.tally.stored == ended.tally.failed == ended.tally.samples:
                raise _nothing_ran(store, dataset)
            return ended


def _opened(data: str | Path, graph: Graph, reading: DataOptions) -> Dataset:
    """A data set; how its files were understood is said before anything takes long, and stays with the run."""
    dataset = open_dataset(data, graph, reading)
    for notice in dataset.notices:
        _logger.info("%s", notice)
    return dataset


def _carried(source: Graph, config: Mapping[str, Any]) -> Graph:
    """The network of a file as it is evaluated."""
    return with_carry(source, config["carry"]) if "carry" in config else source


def _nothing_ran(store: Store, dataset: Dataset) -> InputError:
    """What to say where every sample is an error."""
    first = next(store.rows())
    return InputError(
        f"no sample could be run; the first, {first.name}: {first.error}",
        where=str(dataset.path),
        hint="look whether these are the data of this network",
    )


def _head(
    networks: Networks, point: Point, dataset: Dataset, config: Mapping[str, Any], options: EvaluateOptions
) -> Head:
    """What is known of a run before it begins."""
    graph = networks[point]
    engine, given = engines.resolve(options.engine, graph, engines.given(options), len(dataset))
    if options.scheduler is None:  # before anything is begun: an engine that cannot run here
        engines.get(engine, graph, given)
    how = {"engine": engine, "engine_options": given, "batch": _batch(graph, options)}
    whole = {**config, **how, **point.config(networks.source.time_steps)}
    head = content.head(graph, dataset.digest, len(dataset), whole)
    return replace(head, notices=(*head.notices, *dataset.notices))


def _fill(
    store: Store,
    networks: Networks,
    dataset: Dataset,
    moved: Mapping[str, str],
    where: Executor,
    options: EvaluateOptions | ResumeOptions,
) -> Outcome:
    """Run what the runs of a store lack, one after the other."""
    progress = Progress(store, options.tick)
    outcomes: list[Outcome] = []
    for number, head in enumerate(store.runs):
        if not store.missing(number):
            outcomes.append(counted(store, number))
            continue
        graph = networks[Point.of(head.config)]
        if digest(graph) != head.network:
            raise InputError(
                f"{head.name or 'the network'} is not what this run began with",
                where=str(store.path),
                hint="go on with the version and the settings that it began with",
            )
        config: dict[str, Any] = {**head.config, **moved}
        if options.engine != "auto" or engines.given(options):
            config |= _other_engine(graph, head, options)
        bench = _bench(graph, dataset, config, options.shard)
        outcomes.append(fill(store, number, bench, where, shard=options.shard, tick=progress.of(number)))
    return joined(store, outcomes)


def _places(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in ("network_path", "data_path")}


def _same(path: Path, heads: Sequence[Head]) -> bool:
    """Whether a file has runs of these networks on these data, which would have the same rows."""
    try:
        with Store.open(path) as store:
            return [_decisive(head) for head in store.runs] == [_decisive(head) for head in heads]
    except InputError:  # missing, damaged, or something else
        return False


def _decisive(head: Head) -> tuple[Any, ...]:
    """What decides the rows of a run: integers are the same in every engine."""
    how = {"engine", "engine_options"} if head.graph["arithmetic"] == "integer" else set[str]()
    left_out = {"network_path", "data_path", *how}
    config = {key: value for key, value in head.config.items() if key not in left_out}
    return head.network, head.data, head.samples, json.dumps(config, sort_keys=True)


@contextmanager
def _begun(path: Path, heads: Sequence[Head], force: bool) -> Generator[Store]:
    """A new store, which does not stay if the block ends with an error and there is not a single result."""
    empty = False
    try:
        with Store.create(path, heads, force=force) as store:
            try:
                yield store
            except BaseException:
                empty = all(row.error is not None for n in range(len(heads)) for row in store.rows(n))
                raise
    finally:
        if empty:
            path.unlink()


@takes(ResumeOptions)
def resume(run: str | Path, options: ResumeOptions) -> Outcome:
    """Go on with an evaluation: nothing that is stored runs again.

    Args:
        run: what :func:`evaluate` wrote.

    Returns:
        As :func:`evaluate`.

    Raises:
        InputError: another network or other data than those of the run; a damaged store.
        UsageError: another engine for a float network, whose sums depend on it.
        UsageError, MissingComponent, EngineError: as of :func:`evaluate`.
    """
    with Store.open(run) as seen:  # a file that cannot go on is not touched
        head, moved = seen.runs[0], _moved(options)
    config: dict[str, Any] = {**head.config, **moved}
    if "network_path" not in config or "source" not in config:
        raise UsageError("was not begun by `evaluate`, so nothing of it can go on", where=str(run))
    source = load(config["network_path"])
    if digest(source) != config["source"]:
        raise InputError("not the network of this run", where=config["network_path"], hint="name the one that is")
    dataset = _opened(config["data_path"], source, restored(config["data_options"]))
    if dataset.digest != head.data:
        raise InputError("not the data of this run", where=config["data_path"], hint="name those that are")
    with (
        Store.open(run, write=True) as store,
        Networks(_carried(source, config)) as networks,
        executor(options) as where,
    ):
        return _fill(store, networks, dataset, moved, where, options)


def _moved(options: ResumeOptions) -> dict[str, str]:
    given = {"network_path": options.network, "data_path": options.data}
    return {key: str(Path(path).absolute()) for key, path in given.items() if path is not None}


def _other_engine(graph: Graph, head: Head, options: EngineOptions) -> dict[str, Any]:
    engine, engine_options = engines.resolve(options.engine, graph, engines.given(options), head.samples)
    chosen = {"engine": engine, "engine_options": engine_options}
    if graph.arithmetic == "float" and any(head.config[key] != value for key, value in chosen.items()):
        raise UsageError(
            f"this run of a float network began with the {head.config['engine']} engine, and its sums depend on it",
            hint="leave the engine's options out",
        )
    return chosen


def _batch(graph: Graph, options: EvaluateOptions) -> int | None:
    """Samples that run together; ``None`` where nothing depends on it and the user does not say."""
    if options.batch is None and chained(graph):
        raise UsageError(
            "the network carries membranes from image to image, so results depend on which run together",
            hint="say how many with --batch-size",
        )
    return options.batch or (None if _free(graph) else default_batch(graph))


def _free(graph: Graph) -> bool:
    """True if an image gives the same whatever runs together with it."""
    return graph.arithmetic == "integer" and not chained(graph)


def _bench(graph: Graph, dataset: Dataset, config: Mapping[str, Any], shard: int | None) -> Bench:
    given: int | None = config["batch"]
    batch = given or default_batch(graph)
    if _free(graph):
        batch = min(batch, shard or SHARD)
    job = Job(
        network=digest(graph),
        engine=config["engine"],
        engine_options=config["engine_options"],
        batch=batch,
        measured=given is None,
        data=dataset.digest,
        data_path=config["data_path"],
        data_options=DataOptions(**config["data_options"]),
    )
    return Bench(job, graph, dataset)
