"""One export, top to bottom: load, capture, calibrate, quantize, write, verify, time, report."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import fx

from device_runner.engines import open_engine
from device_runner.golden import make_golden
from device_runner.manifest import Accuracy, Latency, Manifest
from shrink import data, models, quantize, targets
from shrink.bench.host import host
from shrink.bench.latency import Samples, interleave, latency, ratio
from shrink.data.checks import CalibrationStats, check_calibration, check_labels
from shrink.data.images import Images
from shrink.data.split import Split
from shrink.data.stream import SkipLog, stream
from shrink.errors import ArtifactError
from shrink.export.bundle import float_input, float_output, one_line_labels, write_bundle
from shrink.export.names import MODEL_NAMES
from shrink.export.onnx import to_onnx
from shrink.export.tflite import to_tflite
from shrink.files import appears_whole, check_free
from shrink.graph.capture import capture
from shrink.graph.lower import lower
from shrink.inspect.truth import Inspection, inspect_bytes
from shrink.models import Model
from shrink.progress import Progress, Stage
from shrink.recipe import ExportRecipe
from shrink.report import markdown, schema
from shrink.targets import Target
from shrink.verify.answers import Answers, Candidate, collect, relative_error
from shrink.verify.judge import check_answers, judge, overall

HELD_OUT_EVERY = 8  # every so-manieth calibration image sets no range and judges the candidates instead
HELD_OUT_MOST = 32
GOLDEN_IMAGES = 15  # and the probe image
LARGEST_PARITY = 1e-3  # relative error of a float file above which the conversion itself is wrong
PACKAGES = ("torch", "litert-torch", "ai-edge-litert", "onnx", "onnxruntime", "numpy", "pillow")
STAGES = 6
WORKERS = os.cpu_count() or 1


@dataclass(slots=True)
class Written:
    """One file on its way to becoming a bundle."""

    target: Target
    model: bytes
    candidate: Candidate
    inspection: Inspection
    changes: tuple[str, ...] = ()
    declined: tuple[tuple[str, str], ...] = ()
    parity: float | None = None  # largest relative error against the float model; float targets only
    accuracy: Accuracy | None = None
    latency: Latency | None = None
    timing: schema.Timing | None = None


@dataclass(slots=True)
class Clock:
    """Seconds per stage, in the order run."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        start = time.monotonic()
        with self.progress.stage(name) as stage:
            yield stage
        self.seconds[name] = round(time.monotonic() - start, 2)


def export(
    recipe: ExportRecipe,
    out: Path,
    *,
    force: bool = False,
    keep_failed: bool = False,
    command: Sequence[str] = (),
    progress: Progress,
) -> schema.Report:
    """Make one verified bundle per target in `out`, with `report.json` and `report.md` beside them.

    Args:
        recipe: what is asked for.
        out: directory to make; it appears whole or not at all.
        force: replace an existing `out`.
        keep_failed: write the bundle of a target whose verdict is "fail", too.
        command: argv, for the report.
        progress: where to show what is going on.

    Raises:
        Problem: one of the classes in `shrink.errors`; nothing was written.
    """
    check_free(out, replace=force)
    torch.set_num_threads(1)  # images run side by side instead: threads within an op wait for each other on a busy machine
    wanted = [targets.load(name) for name in recipe.targets]
    clock = Clock(progress)
    skipped = SkipLog()
    with clock.stage("load model and data"):
        model = models.load(
            recipe.model, checkpoint=Path(recipe.checkpoint) if recipe.checkpoint else None, preprocess=recipe.preprocess
        )
        split = data.split.load(recipe.data, calibrate=recipe.calibrate, seed=recipe.seed)
        check_labels(model.outputs, split.evaluation)
    with clock.stage("capture graph"):
        graphs = lowered_graphs(model, with_twins(wanted))
    with clock.stage("calibrate and quantize") as stage:
        plans = plan(model, graphs, [t for t in wanted if t.precision == "int8"], split.calibration, skipped, stage)
    with clock.stage("write files") as stage:
        written = {t.name: write(t, model, graphs, plans) for t in stage.track(with_twins(wanted))}
    with clock.stage("verify on the real runtimes") as stage:
        answers = verify(model, [written[t.name] for t in wanted], split.evaluation, recipe.max_drop, skipped, stage)
        check_parity(model, list(written.values()), split.evaluation, recipe.seed)
    with clock.stage("time against float"):
        measure(written, wanted, np.random.default_rng(recipe.seed), model)
    finished = [written[t.name] for t in wanted]
    report = build_report(recipe, model, split, skipped, answers, finished, written, clock, command)
    with appears_whole(out, replace=force) as folder:
        for item in finished:
            if keep_failed or item.accuracy is None or item.accuracy.verdict != "fail":
                save(folder / item.target.name, item, model, split, answers, recipe)
        (folder / "report.json").write_bytes(schema.dump(report))
        (folder / "report.md").write_text(markdown.render(report, out), encoding="utf-8")
    return report


def with_twins(wanted: Sequence[Target]) -> list[Target]:
    """The targets and, for each, the float target it is compared with; every one once, floats first."""
    twins = [targets.load(target.float_twin) for target in wanted]
    return list({target.name: target for target in (*twins, *wanted)}.values())


def lowered_graphs(model: Model, wanted: Sequence[Target]) -> dict[tuple[str, ...], fx.GraphModule]:
    """Capture the model once for each set of rewrites its targets ask for."""
    rules = {target.lower for target in wanted}
    return {rule: lowered(model, rule) for rule in rules}


def lowered(model: Model, rules: tuple[str, ...]) -> fx.GraphModule:
    """The captured graph with these rewrites; what fired is kept in `meta["rewrites"]`."""
    graph_module = capture(model.module, model.input_shape)
    graph_module.meta["rewrites"] = lower(graph_module, rules)
    return graph_module


def plan(
    model: Model,
    graphs: Mapping[tuple[str, ...], fx.GraphModule],
    wanted: Sequence[Target],
    calibration: Images,
    skipped: SkipLog,
    stage: Stage,
) -> dict[str, quantize.Chosen]:
    """Observe ranges in one pass per graph, then choose a plan per int8 target."""
    chosen: dict[str, quantize.Chosen] = {}
    for rules, graph_module in graphs.items():
        mine = [target for target in wanted if target.lower == rules]
        candidates = {target.name: quantize.schemes(graph_module.graph, target) for target in mine}
        names = quantize.observed_names(scheme for found in candidates.values() for scheme in found.values())
        if not names and not mine:
            continue
        held_out: list[torch.Tensor] = []
        images = calibration_images(model, calibration, skipped, held_out, stage)
        ranges = quantize.observe(graph_module, names, images, workers=WORKERS)
        for target in mine:
            chosen[target.name] = quantize.choose(
                graph_module, candidates[target.name], ranges, target, held_out, workers=WORKERS
            )
    return chosen


def calibration_images(
    model: Model, images: Images, skipped: SkipLog, held_out: list[torch.Tensor], stage: Stage
) -> Iterator[torch.Tensor]:
    """Calibration images one by one, (1, C, H, W), but for a few set apart in `held_out`; checked at the end."""
    stats = CalibrationStats()
    number = 0
    for batch in stage.track(stream(images, model.preprocess, batch=8, skipped=skipped), total=-(-len(images) // 8)):
        stats.add(batch.x)
        for x in torch.from_numpy(batch.x):
            number += 1
            if number % HELD_OUT_EVERY == 0 and len(held_out) < HELD_OUT_MOST:
                held_out.append(x[None])
            else:
                yield x[None]
    check_calibration(stats, model.preprocess)


def write(
    target: Target,
    model: Model,
    graphs: Mapping[tuple[str, ...], fx.GraphModule],
    plans: Mapping[str, quantize.Chosen],
) -> Written:
    """Print the file of one target, load it in its runtime and read back what it is."""
    graph_module = graphs[target.lower]
    chosen = plans.get(target.name)
    if chosen is not None:
        onnx = target.format == "onnx"
        unsigned = target.activation_codes == "uint8"
        graph_module = quantize.apply(graph_module, chosen.plan, unsigned=unsigned, pack_weights=onnx)
    content = to_onnx(graph_module) if target.format == "onnx" else to_tflite(graph_module, quantized=chosen is not None)
    candidate = Candidate(
        open_engine(content, target.format, engine=target.engine),
        float_input(target, model.input_shape),
        float_output(model.outputs),
    )
    return Written(
        target,
        content,
        candidate,
        inspect_bytes(content, target.format, target.name),
        changes=(*graphs[target.lower].meta["rewrites"], *(chosen.changes if chosen else ())),
        declined=chosen.declined if chosen else (),
    )


def verify(
    model: Model, items: Sequence[Written], evaluation: Images, max_drop: float, skipped: SkipLog, stage: Stage
) -> Answers:
    """Judge every artefact against the float model on the same images."""
    batches = stream(evaluation, model.preprocess, skipped=skipped)
    tracked = stage.track(batches, total=-(-len(evaluation) // 32))
    answers = collect(tracked, float_scores(model), {item.target.name: item.candidate for item in items})
    reference = answers.reference.argmax(1)
    for item in items:
        given = answers.candidates[item.target.name]
        check_answers(item.target.name, given, reference)
        item.accuracy = judge(answers.labels, reference, given.argmax(1), max_drop=max_drop / 100)
    return answers


def check_parity(model: Model, items: Sequence[Written], evaluation: Images, seed: int) -> None:
    """The float files must answer what the float model answers."""
    few = np.random.default_rng(seed).permutation(len(evaluation))[:GOLDEN_IMAGES]
    floats = {item.target.name: item for item in items if item.target.precision == "fp32"}
    batches = stream(evaluation.subset(np.sort(few)), model.preprocess)
    answers = collect(batches, float_scores(model), {name: item.candidate for name, item in floats.items()})
    for name, item in floats.items():
        item.parity = relative_error(answers.candidates[name], answers.reference)
        if item.parity > LARGEST_PARITY:
            raise ArtifactError(
                f"the float file of {name} does not answer what the model answers",
                f"its scores differ by {item.parity:.2%} of the largest score",
                "report this model: a conversion is wrong",
            )


def float_scores(model: Model):  # type: ignore[no-untyped-def]
    """The float model as a function of arrays."""

    def run(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model.module(torch.from_numpy(x)).numpy()

    return run


def measure(written: Mapping[str, Written], wanted: Sequence[Target], rng: np.random.Generator, model: Model) -> None:
    """Time each artefact in turns with its float twin, one thread each."""
    noise = rng.standard_normal(model.input_shape, dtype=np.float32)
    for target in wanted:
        item, twin = written[target.name], written[target.float_twin]
        samples = interleave({name: timed(written[name], noise) for name in {target.name, target.float_twin}}, rng=rng)
        mine, theirs = samples[target.name], samples[target.float_twin]
        compared = theirs if item is not twin else None
        item.latency = latency(mine, compared, host=host())
        item.timing = timing(mine, compared)


def timed(item: Written, x: np.ndarray):  # type: ignore[no-untyped-def]
    """One inference of an artefact on one image (1, C, H, W)."""
    spec = item.candidate.input
    ready = np.ascontiguousarray(x.transpose(0, 2, 3, 1) if spec.layout == "NHWC" else x)
    return lambda: item.candidate.engine.run(ready)


def timing(samples: Samples, reference: Samples | None) -> schema.Timing:
    """Raw times with the interval of the ratio and what speaks against trusting them."""
    found = ratio(samples, reference) if reference else None
    return schema.Timing(
        samples_ms=tuple(round(ms, 4) for ms in samples.samples_ms),
        ratio_low=found.low if found else None,
        ratio_high=found.high if found else None,
        warnings=samples.warnings,
    )


def build_report(
    recipe: ExportRecipe,
    model: Model,
    split: Split,
    skipped: SkipLog,
    answers: Answers,
    finished: Sequence[Written],
    written: Mapping[str, Written],
    clock: Clock,
    command: Sequence[str],
) -> schema.Report:
    """Everything that was done, measured and declined, as data."""
    reference = answers.reference.argmax(1)
    return schema.Report(
        command=tuple(command),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=schema.Model(
            spec=model.spec,
            weights=model.weights,
            outputs=model.outputs,
            parameters=sum(p.numel() for p in model.module.parameters()),
            macs=written[finished[0].target.float_twin].inspection.truth.macs,
            checkpoint_sha256=model.checkpoint_sha256,
        ),
        data=schema.Data(
            name=recipe.data,
            calibration_images=len(split.calibration),
            evaluation_images=len(answers.labels),
            skipped=tuple(schema.SkippedImage(ref=ref, reason=reason) for ref, reason in skipped.entries.items()),
            notes=split.notes,
        ),
        reference=schema.Reference(
            framework=f"torch {version('torch')}",
            top1=float((reference == answers.labels).mean()),
            images=len(answers.labels),
        ),
        artifacts=tuple(artifact(item, written[item.target.float_twin]) for item in finished),
        cross=tuple(crossings(answers)),
        verdict=overall(item.accuracy.verdict for item in finished if item.accuracy),
        seconds=clock.seconds,
        versions={"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        host=host(),
    )


def artifact(item: Written, twin: Written) -> schema.Artifact:
    """The report's line on one target."""
    parity = twin.parity if item is twin else None
    return schema.Artifact(
        target=item.target.name,
        bundle=item.target.name,
        file=MODEL_NAMES[item.target.format],
        size_bytes=len(item.model),
        float_size_bytes=len(twin.model) if item is not twin else None,
        truth=item.inspection.truth,
        accuracy=item.accuracy,
        latency=item.latency,
        timing=item.timing,
        parity=schema.Parity(max_relative_error=parity) if parity is not None else None,
        changes=item.changes,
        skipped=tuple(schema.Declined(what=what, why=why) for what, why in item.declined),
    )


def crossings(answers: Answers) -> Iterator[schema.Cross]:
    """Agreement of every two artefacts on the best class."""
    names = list(answers.candidates)
    best = {name: scores.argmax(1) for name, scores in answers.candidates.items()}
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            yield schema.Cross(a=a, b=b, agreement=float((best[a] == best[b]).mean()))


def save(folder: Path, item: Written, model: Model, split: Split, answers: Answers, recipe: ExportRecipe) -> None:
    """Write the bundle of one target."""
    folder.mkdir()
    chosen = np.random.default_rng(recipe.seed).permutation(answers.indices)[:GOLDEN_IMAGES]
    images = [split.evaluation.encoded(int(i)) for i in np.sort(chosen)]
    engine = item.candidate.engine
    manifest = Manifest(
        name=f"{model.spec} for {item.target.name}",
        target=item.target.name,
        format=item.target.format,
        task="classification",
        model=MODEL_NAMES[item.target.format],
        input=item.candidate.input,
        output=item.candidate.output,
        preprocess=model.preprocess,
        labels=one_line_labels(labels(model, split.evaluation)),
        files=(),
        truth=item.inspection.truth,
        accuracy=item.accuracy,
        latency=item.latency,
        provenance={
            "recipe": msgspec.to_builtins(recipe),
            "checkpoint_sha256": model.checkpoint_sha256,
            "engine": f"{engine.name} {engine.version}",
            "versions": {name: version(name) for name in PACKAGES},
        },
    )
    write_bundle(folder, manifest, item.model, make_golden(images, model.preprocess, item.candidate.input, engine.run))


def labels(model: Model, images: Images) -> tuple[str, ...]:
    """A name for every output: the data's, else the model's, else its number."""
    if images.classes is not None and len(images.classes) == model.outputs:
        return images.classes
    return model.labels or tuple(images.label_name(i) for i in range(model.outputs))
