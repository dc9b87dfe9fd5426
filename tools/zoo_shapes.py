"""Writes qkf_deploy/hw_models/shapes/*.json, the shapes of the models that `qkf-deploy models` lists, by tracing them.

    python tools/zoo_shapes.py [NAME ...]

Without names: all that are not there yet. A test traces some again.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import qkf_deploy as qd
from qkf_deploy.hw_models.network_shape import NetworkShape, model_key, network_shape
from qkf_deploy.models import build
from qkf_deploy.models.zoo import ENTRIES, Entry

FOLDER = Path(__file__).parents[1] / "qkf_deploy" / "hw_models" / "shapes"


def shape_of(entry: Entry) -> NetworkShape:
    """Traced with random weights at the size of the list."""
    words = entry.arguments.split()
    given = dict(word.split("=", 1) for flag, word in itertools.pairwise(words) if flag == "--factory-arg")
    source = build(entry.name) if entry.source == "checkpoint" else entry.source
    graph = qd.trace(
        source,
        input=entry.input,
        image_size=entry.image_size,
        time_steps=entry.time_steps,
        factory_arguments=given,
        preset="none",
    )
    return network_shape(graph, entry.name)


def main() -> None:
    wanted = {model_key(name) for name in sys.argv[1:]}
    FOLDER.mkdir(exist_ok=True)
    for entry in ENTRIES:
        key = model_key(entry.name)
        path = FOLDER / f"{key}.json"
        if entry.state != "works" or (key not in wanted if wanted else path.exists()):
            continue
        path.write_text(shape_of(entry).to_json(), encoding="utf-8")
        sys.stdout.write(f"{path.name}\n")


if __name__ == "__main__":
    main()
