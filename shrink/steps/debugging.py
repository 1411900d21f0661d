"""Takes a bundle apart: makes its model again from its own recipe, and compares every form on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from device_runner.bundle import Bundle, open_bundle
from device_runner.engines import open_engine
from device_runner.preprocess import encode
from shrink import recipe as recipes
from shrink import targets
from shrink.data.stream import SkipLog, stream
from shrink.debug import inside
from shrink.debug.layers import LayerError, Values, layer_errors
from shrink.debug.parity import Step, step
from shrink.errors import RequestError
from shrink.models.loading import SOURCES
from shrink.models.spec import parse
from shrink.progress import Progress, Stage
from shrink.recipe import ExportRecipe
from shrink.steps.calibrating import Calibrated, calibrate
from shrink.steps.capturing import Lowered, capture_model, lower_all
from shrink.steps.loading import Job, Rules, load
from shrink.steps.remaking import remake
from shrink.steps.rounding import train_rounded
from shrink.steps.teaching import prepare
from shrink.steps.threads import one_thread_per_op
from shrink.steps.verifying import LARGEST_PARITY
from shrink.steps.writing import Artifact, write
from shrink.verify.answers import Candidate, most_of_rounding

STAGES = 6
LOST_DB = 10.0  # how much farther; other roundings of halves make about as much noise as quantization did
MOST_LOST_DB = 25.0  # a value nearer than this is right
IMAGES = 32  # the steps are compared on
LAYER_IMAGES = 8  # the layers are
MOST_QUANTIZATION = 0.10  # relative error of the scores; the demo networks and ImageNet models are at 0.02 to 0.07


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found, the culprit first."""

    bundle: str
    target: str
    culprit: tuple[str, ...]  # lines: what it is, why
    rebuilt: bool  # whether the file made again has the very same bytes
    images: int
    steps: tuple[Step, ...]
    layers: tuple[LayerError, ...]  # the most harmful first; none for a float bundle


def debug(path: Path, *, model: str | None, progress: Progress) -> Diagnosis:
    """Compare the float model, its graph, the simulated graph and the files, and find the layer that costs most.

    Args:
        path: the bundle.
        model: as in the recipe of the export; needed, as a sign of trust, where the bundle names code of its own.
        progress: where to show what is going on.

    Raises:
        BundleError: the bundle is damaged.
        RequestError: its recipe is missing, names code that was not asked for, or what it names has changed.
    """
    bundle = open_bundle(path)
    recipe = _recipe(bundle, model)
    target = bundle.manifest.target
    with one_thread_per_op():
        with progress.stage("load model and data"):
            job = load(recipe, tuple(map(targets.load, recipe.targets)))
            _check_weights(job, bundle)
        with progress.stage("capture graph") as stage:
            captured = capture_model(job)
            lesson = prepare(job, captured, SkipLog(), stage)
            remade = remake(job, lesson, captured, SkipLog(), stage)
            graphs = lower_all(job, captured if remade is None else remade.graph)
        with progress.stage("calibrate and quantize") as stage:
            calibrated = train_rounded(job, lesson, calibrate(job, graphs, SkipLog(), stage), stage)
        with progress.stage("write files") as stage:
            artifacts = write(job, graphs, calibrated, stage)
        with progress.stage("compare the steps"):
            x = _images(job)
            wanted = (
                job.reference(x) if remade is None else _run(remade.graph, x)
            )  # what pruning cost is not looked for
            steps = tuple(_steps(job, wanted, graphs, calibrated, artifacts, bundle, x))
        with progress.stage("look at every layer") as stage:
            layers = _layers(artifacts[target], x[:LAYER_IMAGES], stage)
    rebuilt = hashlib.sha256(artifacts[target].model).digest() == hashlib.sha256(bundle.model).digest()
    return Diagnosis(str(path), target, _culprit(steps, layers), rebuilt, len(x), steps, layers)


def _recipe(bundle: Bundle, model: str | None) -> ExportRecipe:
    """What the bundle was made with; its own code only if the user names it, too: a bundle may come from anybody."""
    asked: Any = bundle.manifest.provenance.get("recipe")
    if not isinstance(asked, Mapping):
        fix = "debug a bundle that shrink export wrote"
        raise RequestError(f"{bundle.path} cannot be made again", "its provenance holds no recipe", fix)
    recipe = recipes.parse(
        dict(asked) | ({} if model is None else {"model": model}), f"the provenance of {bundle.path}"
    )
    if model is None and parse(recipe.model).source not in SOURCES:
        why = f"its model is made by {recipe.model}, and a bundle alone is no reason to run code"
        raise RequestError(f"{bundle.path} names code to run", why, f"if you trust that code: --model '{recipe.model}'")
    if bundle.manifest.target not in recipe.targets:
        why = f"its target is {bundle.manifest.target}, its recipe makes {', '.join(recipe.targets)}"
        raise RequestError(f"{bundle.path} contradicts itself", why, "export it again")
    return recipe


def _check_weights(job: Job, bundle: Bundle) -> None:
    stored = bundle.manifest.provenance.get("checkpoint_sha256")
    if job.model.checkpoint_sha256 != stored:
        why = f"its sha256 is {str(job.model.checkpoint_sha256)[:12]}..., that of the export {str(stored)[:12]}..."
        raise RequestError("the checkpoint is not the one of the export", why, "put that one back, or export again")


def _images(job: Job) -> NDArray[np.float32]:
    """Evaluation images drawn from all over the set, (n, C, H, W)."""
    images = job.split.evaluation
    drawn = np.random.default_rng(job.recipe.seed).permutation(len(images))[:IMAGES]
    return np.concatenate([batch.x for batch in stream(images.subset(drawn), job.model.preprocess, skipped=SkipLog())])


def _steps(
    job: Job,
    model: NDArray[np.float32],
    graphs: Mapping[Rules, Lowered],
    calibrated: Calibrated,
    artifacts: Mapping[str, Artifact],
    bundle: Bundle,
    x: NDArray[np.float32],
) -> Iterator[Step]:
    """From the model in PyTorch to the file of the bundle; the targets of the other format as well."""
    written = {name: item.candidate.run(x) for name, item in artifacts.items()}
    noise: dict[str, float] = {}
    for target in job.files:
        rewritten = _run(graphs[job.rules(target)].graph, x)
        if target.precision == "fp32":
            yield step(f"{target.format} graph, rewritten,", rewritten, "the model", model, most=LARGEST_PARITY)
            yield step(f"{target.name} file", written[target.name], "the model", model, most=LARGEST_PARITY)
            continue
        simulated = _run(calibrated.plans[target.name].simulated(), x)
        yield step(f"{target.name} graph, rewritten,", rewritten, "the model", model, most=LARGEST_PARITY)
        quantized = step(f"{target.name} simulated", simulated, "the model", model, most=MOST_QUANTIZATION)
        noise[target.name] = most_of_rounding(quantized.error)
        yield quantized
        yield step(f"{target.name} file", written[target.name], "the simulation", simulated, most=noise[target.name])
    mine = artifacts[bundle.manifest.target].candidate
    engine = open_engine(bundle.model, bundle.manifest.format, engine=mine.engine.name)
    given = Candidate(engine, bundle.manifest.input, bundle.manifest.output, "the bundle").run(x)
    most = noise.get(bundle.manifest.target, LARGEST_PARITY)
    yield step("the bundle's file", given, "the file made again", written[bundle.manifest.target], most=most)


def _run(graph_module: fx.GraphModule, x: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.no_grad():
        return np.concatenate([graph_module(one).numpy() for one in torch.from_numpy(x).unsqueeze(1)])


def _layers(item: Artifact, x: NDArray[np.float32], stage: Stage) -> tuple[LayerError, ...]:
    """What every layer adds in the simulation, and how far its value in the file made again is from that."""
    if item.chosen is None:
        return ()
    simulated = item.chosen.simulated()
    found = layer_errors(item.chosen.graph, simulated, stage.track(torch.from_numpy(x).unsqueeze(1)))
    wanted = list(inside.held(simulated))
    run, values = inside.RUNS[item.target.format](item.model), Values(simulated)

    def images() -> Iterator[tuple[dict[str, NDArray[np.float32]], list[inside.Inner]]]:
        for one in stage.track(x):
            by_node = {node.name: value for node, value in values.values(torch.from_numpy(one)[None]).items()}
            ready = encode(one.transpose(1, 2, 0), item.candidate.input)
            yield {node: by_node[node].numpy() for _, node, _, _ in wanted}, run(ready)

    errors = inside.file_errors(wanted, images())
    return tuple(replace(one, file_db=errors.get(one.name)) for one in found)


def _culprit(steps: tuple[Step, ...], layers: tuple[LayerError, ...]) -> tuple[str, ...]:
    """The first step that lost more than it may, and the layer that costs most."""
    unsound = [one for one in steps if not one.is_sound]
    lines = [
        f"culprit step: {one.what} against {one.against}: error {one.error:.2%}, {one.most:.1%} would be normal"
        for one in unsound[:1]
    ] or ["no step loses more than is normal for it"]
    lost = [one for one in sorted(layers, key=lambda one: one.order) if _is_lost(one)]
    if lost:
        where = f"{lost[0].layer or lost[0].name} ({lost[0].op})"
        lines.append(f"culprit in the file: {where}: its value there is {lost[0].file_db:.1f} dB from the simulation's")
    if layers:
        first = layers[0]
        name = f"{'culprit' if unsound and 'simulated' in unsound[0].what else 'costliest'} layer"
        lines += [
            f"{name}: {first.layer or first.name} ({first.op}), which alone changes the scores by {first.scores:.2%}",
            f"  why: {first.words}",
        ]
    return tuple(lines)


def _is_lost(one: LayerError) -> bool:
    """Whether a value in the file is much farther from the simulation than that is from the float model."""
    return one.file_db is not None and one.file_db < min(one.total_db - LOST_DB, MOST_LOST_DB)
