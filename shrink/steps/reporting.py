"""Everything that was done, measured and declined, as the records of `report.json`."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import combinations

from shrink import targets
from shrink.bench.host import host, int8_dot_products
from shrink.data.stream import SkipLog
from shrink.export.names import MODEL_NAMES
from shrink.report import schema
from shrink.steps.loading import Job
from shrink.steps.remaking import Remade
from shrink.steps.timing import Timed
from shrink.steps.verifying import Verified
from shrink.steps.writing import Artifact
from shrink.verify.answers import Answers
from shrink.verify.judge import overall

PACKAGES = ("torch", "litert-torch", "ai-edge-litert", "onnx", "onnxruntime", "numpy", "pillow")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What all the steps found."""

    job: Job
    artifacts: Mapping[str, Artifact]  # of the targets and their float twins
    verified: Verified
    timed: Mapping[str, Timed]
    calibration_images: int  # that could be read
    skipped: SkipLog
    keep_failed: bool  # whether a verdict of "fail" still gives a bundle
    remade: Remade | None = None  # None: neither pruned nor trained

    def is_bundled(self, name: str) -> bool:
        """Whether the target gets a bundle: all do but those that failed."""
        return self.keep_failed or self.verified.accuracy[name].verdict != "fail"


def versions() -> dict[str, str]:
    """What a result may depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def build_report(outcome: Outcome, *, command: Sequence[str], seconds: Mapping[str, float]) -> schema.Report:
    """The report of one export.

    Args:
        command: argv.
        seconds: step -> how long it took.
    """
    return schema.Report(
        command=tuple(command),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=_model(outcome),
        data=_data(outcome),
        reference=_reference(outcome.verified.answers),
        artifacts=tuple(_artifact(outcome, target.name) for target in outcome.job.targets),
        cross=tuple(_crossings(outcome.verified.answers)),
        steps=tuple(_steps(outcome.verified.answers)),
        verdict=overall(accuracy.verdict for accuracy in outcome.verified.accuracy.values()),
        notes=(
            *outcome.job.notes,
            *outcome.verified.notes,
            *_not_faster(outcome.timed, int8_dot_products()),
            *_beside_rivals(outcome),
        ),
        seconds=dict(seconds),
        versions=versions(),
        host=host(),
    )


def _model(outcome: Outcome) -> schema.Model:
    job = outcome.job
    twin = outcome.artifacts[job.targets[0].float_twin]
    return schema.Model(
        spec=job.model.spec,
        weights=job.model.weights,
        outputs=job.model.outputs,
        parameters=sum(parameter.numel() for parameter in job.model.module.parameters()),
        macs=twin.inspection.truth.macs,
        checkpoint_sha256=job.model.checkpoint_sha256,
    )


def _data(outcome: Outcome) -> schema.Data:
    skipped = outcome.skipped.entries
    return schema.Data(
        name=outcome.job.recipe.data,
        calibration_images=outcome.calibration_images,
        evaluation_images=len(outcome.verified.answers.labels),
        skipped=tuple(schema.SkippedImage(ref=ref, reason=reason) for ref, reason in skipped.items()),
        notes=outcome.job.split.notes,
    )


def _reference(answers: Answers) -> schema.Reference:
    right = answers.reference.argmax(1) == answers.labels
    return schema.Reference(framework=f"torch {version('torch')}", top1=float(right.mean()), images=len(right))


def _steps(answers: Answers) -> Iterator[schema.Step]:
    for what, scores in answers.between.items():
        yield schema.Step(what=what, top1=float((scores.argmax(1) == answers.labels).mean()))


def _artifact(outcome: Outcome, name: str) -> schema.Artifact:
    item = outcome.artifacts[name]
    twin = outcome.artifacts[item.target.float_twin]
    parity = outcome.verified.parity.get(name)
    return schema.Artifact(
        target=name,
        bundle=name if outcome.is_bundled(name) else None,
        file=MODEL_NAMES[item.target.format],
        size_bytes=len(item.model),
        float_size_bytes=None if item is twin else len(twin.model),
        truth=item.inspection.truth,
        accuracy=outcome.verified.accuracy[name],
        latency=outcome.timed[name].latency,
        timing=outcome.timed[name].timing,
        parity=None if parity is None else schema.Parity(max_relative_error=parity),
        changes=(*(outcome.remade.changes if outcome.remade else ()), *item.changes),
        rungs=tuple(
            schema.Rung(what=r.what, error=r.error, kept=r.kept, why=r.why)
            for r in (item.chosen.rungs if item.chosen else ())
        ),
        skipped=tuple(schema.Declined(what=what, why=why) for what, why in _not_pruned(outcome)),
    )


def _not_pruned(outcome: Outcome) -> Iterator[tuple[str, str]]:
    """Layers whose channels all stay, and why."""
    for declined in outcome.remade.plan.skipped if outcome.remade and outcome.remade.plan else ():
        yield f"pruning of {declined.layer}", declined.why


def _not_faster(timed: Mapping[str, Timed], dot_products: str) -> Iterator[str]:
    """The targets that are not surely faster than their float file: int8 is asked for to be faster."""
    missing = f": this processor has {dot_products}, which int8 gains from" if dot_products.startswith("no ") else ""
    for name, found in timed.items():
        reason = missing if targets.load(name).precision == "int8" else ""
        low, high = found.timing.ratio_low, found.timing.ratio_high
        if low is not None and high is not None and high >= 1:
            surely = "is slower" if low > 1 else "is not faster"
            yield f"{name} {surely} than its float file on this host, {low:.2f} to {high:.2f} times its time{reason}"


def _beside_rivals(outcome: Outcome) -> Iterator[str]:
    """Where a target was exported beside the one that is usually faster or more exact: what it costs to choose it."""
    for target in outcome.job.targets:
        if target.rival in outcome.timed:
            mine, other = (outcome.timed[name].latency.median_ms for name in (target.name, target.rival))
            same, theirs = (outcome.verified.accuracy[name].agreement for name in (target.name, target.rival))
            yield (
                f"{target.name} takes {mine / other:.2f} times as long as {target.rival} on this host, and answers as "
                f"the float model on {same:.2%} of the images, against {theirs:.2%}"
            )


def _crossings(answers: Answers) -> Iterator[schema.Cross]:
    """Agreement of every two artefacts on the best class."""
    best = {name: scores.argmax(1) for name, scores in answers.candidates.items()}
    for a, b in combinations(best, 2):
        yield schema.Cross(a=a, b=b, agreement=float((best[a] == best[b]).mean()))
