"""The public functions: one per arrow of the pipeline. The command line calls these and nothing else.

checkpoint -trace-> float graph -fold-> float graph -quantize-> integer graph -simulate-> counts -price-> energy

Keyword arguments are the fields of the options classes in :mod:`qkf_deploy.options`; unknown ones are an error.
"""

from qkf_deploy.errors import QkfError
from qkf_deploy.evaluation.run import Outcome
from qkf_deploy.ir import Graph
from qkf_deploy.ledger import Ledger
from qkf_deploy.pipeline.calibrating import calibrate
from qkf_deploy.pipeline.comparing import compare, verify
from qkf_deploy.pipeline.costs import load_chip, load_profile, map_network, movement, price, price_rates, write_report
from qkf_deploy.pipeline.evaluating import evaluate, resume
from qkf_deploy.pipeline.exporting import (
    check_export,
    export_lava,
    export_memory,
    export_nir,
    export_onnx,
    export_run,
    export_sana_fe,
)
from qkf_deploy.pipeline.finetuning import finetune
from qkf_deploy.pipeline.hardware import (
    dense_twin,
    explore_hardware,
    hardware,
    mapped_time,
    measure_activity,
    measure_network_use,
)
from qkf_deploy.pipeline.inputs import Inputs, load_inputs
from qkf_deploy.pipeline.networks import (
    audit,
    carry,
    fold,
    import_nir,
    layers,
    load,
    or_gates,
    quantize,
    register_neuron,
    save,
    trace,
    widths,
    with_time_steps,
)
from qkf_deploy.pipeline.over_time import OverTime, over_time
from qkf_deploy.pipeline.record import read_record
from qkf_deploy.pipeline.running import (
    default_batch,
    export_events,
    load_images,
    load_run,
    measure,
    save_arrays,
    save_run,
    simulate,
)
from qkf_deploy.pipeline.summarizing import (
    compare_runs,
    load_runs,
    summarize,
    summarize_sweep,
    write_sweep_report,
)
from qkf_deploy.pipeline.training import train
from qkf_deploy.pipeline.weighing import sensitivity
from qkf_deploy.pipeline.whole import WholeRun, run
from qkf_deploy.runs.content import RunFile
from qkf_deploy.simulators.run import Run

__all__ = [
    "Graph",
    "Inputs",
    "Ledger",
    "Outcome",
    "OverTime",
    "QkfError",
    "Run",
    "RunFile",
    "WholeRun",
    "audit",
    "calibrate",
    "carry",
    "check_export",
    "compare",
    "compare_runs",
    "default_batch",
    "dense_twin",
    "evaluate",
    "explore_hardware",
    "export_events",
    "export_lava",
    "export_memory",
    "export_nir",
    "export_onnx",
    "export_run",
    "export_sana_fe",
    "finetune",
    "fold",
    "hardware",
    "import_nir",
    "layers",
    "load",
    "load_chip",
    "load_images",
    "load_inputs",
    "load_profile",
    "load_run",
    "load_runs",
    "map_network",
    "mapped_time",
    "measure",
    "measure_activity",
    "measure_network_use",
    "movement",
    "or_gates",
    "over_time",
    "price",
    "price_rates",
    "quantize",
    "read_record",
    "register_neuron",
    "resume",
    "run",
    "save",
    "save_arrays",
    "save_run",
    "sensitivity",
    "simulate",
    "summarize",
    "summarize_sweep",
    "trace",
    "train",
    "verify",
    "widths",
    "with_time_steps",
    "write_report",
    "write_sweep_report",
]
