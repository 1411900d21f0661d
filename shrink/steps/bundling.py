"""Last step: the files on disk, all at once or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from device_runner.golden import make_golden
from device_runner.manifest import MANIFEST_NAME, Manifest
from shrink.data.images import Images
from shrink.export.bundle import one_line_labels, write_bundle
from shrink.export.names import MODEL_NAMES
from shrink.files import appears_whole
from shrink.models import Model
from shrink.report import markdown, schema
from shrink.runs import pictures, predictions
from shrink.steps.reporting import Outcome, versions
from shrink.steps.writing import Artifact
from shrink.verify import kernels

REPORT_JSON, REPORT_MD, REPORT_HTML = (
    "report.json",
    "report.md",
    "report.html",
)  # the page is written by `shrink report`
OURS = (REPORT_JSON, REPORT_MD, REPORT_HTML, predictions.NAME, pictures.NAME)
GOLDEN_IMAGES = 15  # and the probe image


@dataclass(frozen=True, slots=True)
class Bundle:
    """One bundle, in memory."""

    manifest: Manifest
    model: bytes
    golden: bytes


def is_ours(path: Path) -> bool:
    """Whether an entry of an output directory is one that an export writes."""
    return path.name in OURS or (path / MANIFEST_NAME).is_file()


def bundles(outcome: Outcome) -> Iterator[Bundle]:
    """The bundle of every target that gets one, one at a time."""
    job, answers = outcome.job, outcome.verified.answers
    chosen = np.random.default_rng(job.recipe.seed).permutation(answers.indices)[:GOLDEN_IMAGES]
    images = [job.split.evaluation.encoded(int(index)) for index in np.sort(chosen)]
    for target in job.targets:
        if outcome.is_bundled(target.name):
            item = outcome.artifacts[target.name]
            golden = make_golden(images, job.model.preprocess, item.candidate.input, item.candidate.engine.run)
            spread = _kernel_spread(outcome, item, images, golden)
            yield Bundle(_manifest(outcome, item, spread), item.model, golden)


def _kernel_spread(outcome: Outcome, item: Artifact, images: list[bytes], golden: bytes) -> float | None:
    """How far the answers of other kernels lie from the golden ones; None where there are none."""
    run = kernels.alone(item.model) if kernels.differ(item.inspection.truth) else None
    if run is None:
        return None
    other = make_golden(images, outcome.job.model.preprocess, item.candidate.input, run)
    return kernels.spread(golden, other, item.candidate.output)


def records(outcome: Outcome) -> dict[str, bytes]:
    """The files beside the report: the answers to every image, and pictures of those that changed."""
    answers = outcome.verified.answers
    images = outcome.job.split.evaluation.subset(answers.indices)  # those that could be read
    kept = predictions.Predictions(
        classes=labels(outcome.job.model, images),
        refs=images.refs,
        hashes=np.stack([_hash(images, row) for row in range(len(images))]),
        labels=answers.labels.astype(np.int32),
        slices=predictions.groups(images.columns),
        reference=predictions.answered(answers.reference),
        files={name: predictions.answered(scores) for name, scores in answers.candidates.items()},
    )
    return {predictions.NAME: predictions.dump(kept), pictures.NAME: pictures.dump(kept, images.encoded)}


def _hash(images: Images, row: int) -> NDArray[np.uint8]:
    return np.frombuffer(images.digest(row)[: predictions.HASH_BYTES], np.uint8)


def save(out: Path, made: list[Bundle], report: schema.Report, beside: Mapping[str, bytes], *, force: bool) -> None:
    """Write one folder per bundle, named after its target, and the report and what belongs to it beside them.

    Raises:
        OutputError: `out` is in the way, or cannot be written.
    """
    with appears_whole(out, replace=force, is_ours=is_ours) as folder:
        for bundle in made:
            (folder / bundle.manifest.target).mkdir()
            write_bundle(folder / bundle.manifest.target, bundle.manifest, bundle.model, bundle.golden)
        for name, content in beside.items():
            (folder / name).write_bytes(content)
        (folder / REPORT_JSON).write_bytes(schema.dump(report))
        (folder / REPORT_MD).write_text(markdown.render(report, out), encoding="utf-8")


def _manifest(outcome: Outcome, item: Artifact, kernel_spread: float | None) -> Manifest:
    """All but the files, which `write_bundle` fills in."""
    job, name, engine, remade = outcome.job, item.target.name, item.candidate.engine, outcome.remade
    return Manifest(
        name=f"{job.model.spec} for {name}",
        target=name,
        format=item.target.format,
        task="classification",
        model=MODEL_NAMES[item.target.format],
        input=item.candidate.input,
        output=msgspec.structs.replace(item.candidate.output, kernel_spread=kernel_spread),
        preprocess=job.model.preprocess,
        labels=one_line_labels(labels(job.model, job.split.evaluation)),
        files=(),
        truth=item.inspection.truth,
        accuracy=outcome.verified.accuracy[name],
        latency=outcome.timed[name].latency,
        provenance={
            "recipe": msgspec.to_builtins(job.recipe),
            "weights": job.model.weights,
            "checkpoint_sha256": job.model.checkpoint_sha256,
            "engine": f"{engine.name} {engine.version}",
            "versions": versions(),
            **({"pruning": msgspec.to_builtins(remade.plan)} if remade is not None and remade.plan is not None else {}),
        },
    )


def labels(model: Model, images: Images) -> tuple[str, ...]:
    """A name for every output: the data's, else the model's, else its number."""
    if images.classes is not None and len(images.classes) == model.outputs:
        return images.classes
    return model.labels or tuple(images.label_name(i) for i in range(model.outputs))
