"""One architecture of `pruning_zoo`: python -m benchmarks.pruning_zoo_row SPEC OUT CONVERT."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor, fx

from benchmarks.pruning_zoo import LEFT, Stopwatch
from benchmarks.randomize import randomize
from shrink import models, prune
from shrink.graph.capture import capture
from shrink.prune.groups import find_groups
from shrink.prune.plan import dead_units
from shrink.prune.remove import masked


def measure(spec: str, *, convert: bool) -> dict[str, object]:
    """Prune by magnitude, and compare with the whole model in which the same channels are zero."""
    model = models.load(spec)
    rng = torch.Generator().manual_seed(0)
    image = torch.randn(model.input_shape, generator=rng)
    randomize(model.module, [torch.randn(model.input_shape, generator=rng) for _ in range(2)], seed=0)
    model.module.requires_grad_(False)
    watch = Stopwatch()
    whole = capture(model.module, model.input_shape)
    watch.lap("capture")
    pruned = prune.run(whole, prune.Settings(f"{1 / LEFT:.2f}x", "macs", LEFT, score="magnitude"), None)
    watch.lap("prune")
    with torch.no_grad():
        given = pruned.graph(image)
        coupling = find_groups(whole)
        wanted = masked(whole, coupling, dead_units(pruned.plan, coupling))(image)
        change = _relative(given, whole(image))
    result: dict[str, object] = {
        "seconds": watch.seconds,
        "cpu_seconds": watch.cpu_seconds,
        "macs_before": pruned.plan.macs_before,
        "macs_after": pruned.plan.macs_after,
        "groups": len(coupling.groups),
        "frozen": len(coupling.frozen),
        "error": _relative(given, wanted),
        "change": change,
    }
    if convert:
        result["tflite_error"] = _tflite_error(pruned.graph, image, given)
    return result


def _relative(given: Tensor, wanted: Tensor) -> float:
    return float((given - wanted).abs().max() / wanted.abs().max())


def _tflite_error(graph: fx.GraphModule, image: Tensor, wanted: Tensor) -> float:
    from device_runner.engines import open_engine
    from shrink import targets
    from shrink.export.tflite import to_tflite
    from shrink.graph.lower import lower

    target = targets.load("tflite-fp32")
    lower(graph, target.rewrites)
    engine = open_engine(to_tflite(graph, quantized=False), "tflite", engine=target.engine)
    return _relative(torch.from_numpy(engine.run(np.asarray(image))), wanted)


if __name__ == "__main__":
    spec, out, convert = sys.argv[1:]
    Path(out).write_bytes(msgspec.json.encode(measure(spec, convert=convert == "1")))
