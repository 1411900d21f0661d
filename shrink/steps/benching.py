"""A bundle measured on a board, and the board's record made into a result."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import device_runner
import shrink
from device_runner.bundle import Bundle, open_bundle
from device_runner.engines import FORMATS, PACKAGES
from device_runner.probe.record import Facts, ProbeRecord, Side
from shrink.bench import summary, worth
from shrink.bench.result import Data, ImageRef, Measured, Place, Result
from shrink.boards.board import Board
from shrink.boards.counting import count, no_counts
from shrink.boards.packing import pack, runner_files
from shrink.boards.visit import Event, Hello, Visit
from shrink.data.images import Images
from shrink.data.split import draw, load
from shrink.errors import BoardError, DataError, LinkError, RequestError, StageError
from shrink.progress import Progress, Stage

OLDEST_PYTHON = (3, 11)
NEEDED = ("numpy", "pillow", "msgspec")
PARTS = {"load and self-test": (0, 0), "answer images": (0, 50), "time": (50, 100)}
"""Part of the work on the board -> where it begins and ends, percent."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure, and how long."""

    bundle: Path
    against: Path | None = None  # another bundle, timed in turns: usually the float one
    data: str | None = None  # None: that of the bundle's export
    images: int = 200  # at most
    seed: int = 0  # of the choice of images
    threads: int = 1
    repeats: int = 5
    seconds: float = 60.0  # of timing, at least
    samples: int = 1024  # of timing, at least
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Packed:
    """All that the board needs, as local files named by their SHA-256."""

    bundles: tuple[Bundle, ...]  # the candidate, and the one it is timed against
    data: Data
    files: Mapping[str, Path]
    packed: tuple[str, ...]  # SHA-256 of the zip of each bundle
    runner: str
    arguments: tuple[str, ...]


def bench(asked: Request, board: Board, *, command: Sequence[str], progress: Progress) -> Result:
    """Measure on the board.

    Returns:
        the result; not `complete` if the link was lost on the way, and then nothing in it counts.

    Raises:
        RequestError: the bundle, the data or the board cannot be used.
        Problem: the bundle fails its self-test there, or the runtime refuses it.
    """
    with tempfile.TemporaryDirectory(prefix="shrink-bench-") as folder:
        with progress.stage("choose images"):
            packed = _pack(asked, Path(folder))
        try:
            record = _visit(board, packed, progress)
        except LinkError as lost:
            return _broken_off(asked, board, packed, command, str(lost.what))
        why = no_counts(board, asked.threads)
        if why is None:
            with progress.stage(f"count instructions on {board.url}") as stage:
                record = _counted(record, board, packed, Path(folder), stage)
    return result_of(record, board, packed, command, why)


def stages(board: Board) -> int:
    """How many stages a measurement there shows."""
    return 4 + (no_counts(board, 1) is None)


def _counted(record: ProbeRecord, board: Board, packed: Packed, folder: Path, stage: Stage) -> ProbeRecord:
    """The record with the instructions of each side; the files are those that the visit left in the board's store."""
    store, counts = Path(board.base) / "store", []
    for digest in stage.track(packed.packed):
        counts.append(count(board, store / packed.runner, store / digest, folder / f"counts-{digest}"))
    sides = {"candidate": record.candidate, "against": record.against}
    found = {name: msgspec.structs.replace(side, instructions=n)
             for (name, side), n in zip(sides.items(), counts, strict=False) if side is not None}  # fmt: skip
    return msgspec.structs.replace(record, **found)


def _visit(board: Board, packed: Packed, progress: Progress) -> ProbeRecord:
    with Visit(board, packed.files) as visit:
        with progress.stage(f"reach {board.url}"):
            hello = visit.hello()
            _check_fit(board, hello, packed.bundles)
        with progress.stage("send what it lacks"):
            visit.send(hello)
        with progress.stage(f"measure on {board.url}") as stage:
            return _record(_watched(visit.work(packed.runner, list(packed.arguments)), stage), board)


def _check_fit(board: Board, hello: Hello, bundles: Iterable[Bundle]) -> None:
    """Refuse a board that lacks something, before anything is sent."""
    if hello.python[:2] < OLDEST_PYTHON:
        shown, oldest = ".".join(map(str, hello.python)), ".".join(map(str, OLDEST_PYTHON))
        fix = f"name a newer one: {board.url.partition('?')[0]}?python=/path/to/python{oldest}"
        raise BoardError(f"Python {shown} on {board.url} is too old", f"the runner needs {oldest}", fix)
    missing = [name for name in NEEDED if name not in hello.packages]
    for bundle in bundles:
        choice = [PACKAGES[engine][1] for engine in FORMATS[bundle.manifest.format]]
        if not any(name.split()[0] in hello.packages for name in choice):
            missing.append(choice[0])
    if missing:
        names = " ".join(dict.fromkeys(missing))
        why = f"its Python has no {', no '.join(dict.fromkeys(missing))}"
        raise BoardError(f"{board.url} cannot run the bundle", why, board.install_command(names))


def _watched(events: Iterable[Event], stage: Stage) -> Iterator[Event]:
    """The events, with the stage counting percents as they come."""
    reached = [0]

    def percents() -> Iterator[int]:
        for event in events:
            held.append(event)
            what, done, total = [*event.get("progress", ()), None, 0, 1][:3]
            low, high = PARTS.get(str(what), (reached[0], reached[0]))
            now = low + (high - low) * int(done) // max(int(total), 1)
            for _ in range(reached[0], min(now, 100)):
                reached[0] += 1
                yield 1
            yield from ()

    held: list[Event] = []
    for _ in stage.track(percents(), total=100):
        pass
    yield from held


def _record(events: Iterable[Event], board: Board) -> ProbeRecord:
    """The result among the events; what failed there becomes the error here."""
    last: Event = {}
    for event in events:
        last = event
    if "problem" in last:
        what, why, fix = (str(word) for word in last["problem"][1:])
        raise StageError(f"on {board.url}: {what}", why, fix)
    if "failed" in last:
        what = ": ".join(map(str, last["failed"]))
        raise StageError(f"the measurement failed on {board.url}", what[:500], "run it again with --threads 1")
    try:
        return msgspec.convert(last["result"], ProbeRecord)
    except (msgspec.ValidationError, KeyError) as error:
        why = f"its record is not understood: {error}"
        raise StageError(f"{board.url} answered nonsense", why, "run it again") from error


def _pack(asked: Request, folder: Path) -> Packed:
    bundles = tuple(open_bundle(path) for path in (asked.bundle, asked.against) if path is not None)
    if len({bundle.manifest.labels for bundle in bundles}) > 1:
        why = "their labels differ, so they do not answer the same question"
        raise RequestError("the two bundles are of different models", why, "give the float bundle of the same export")
    chosen, notes = choose(bundles[0], asked)
    encoded = [chosen.encoded(index) for index in range(len(chosen))]
    images = pack({f"{i:06}{chosen.suffix(i)}": data for i, data in enumerate(encoded)}, folder)
    data = Data(
        name=chosen.name,
        sha256=images,
        images=tuple(_refs(chosen, encoded)),
        notes=notes,
        unread={},
    )
    runner = pack(runner_files(), folder)
    packed = tuple(pack(bundle.files, folder) for bundle in bundles)
    arguments = [f"@{packed[0]}", "--images", f"@{images}", "--threads", str(asked.threads)]
    arguments += ["--repeats", str(asked.repeats), "--seconds", str(asked.seconds), "--samples", str(asked.samples)]
    arguments += ["--pause", str(asked.pause_s), *(["--against", f"@{packed[1]}"] if len(packed) > 1 else [])]
    files = {digest: folder / digest for digest in (runner, images, *packed)}
    return Packed(bundles, data, files, packed, runner, tuple(arguments))


def _refs(images: Images, encoded: Sequence[bytes]) -> Iterator[ImageRef]:
    assert images.labels is not None, "checked when they were chosen"
    for ref, data, label in zip(images.refs, encoded, images.labels.tolist(), strict=True):
        yield ImageRef(ref=ref, sha256=hashlib.sha256(data).hexdigest(), label=label)


def choose(bundle: Bundle, asked: Request) -> tuple[Images, tuple[str, ...]]:
    """Evaluation images, as many of each class as can be; never those that calibrated the bundle.

    Raises:
        DataError: there is no data, it has no labels, or its classes are not the bundle's.
    """
    recipe = bundle.manifest.provenance.get("recipe")
    recipe = recipe if isinstance(recipe, dict) else {}
    data = asked.data or recipe.get("data")
    if not isinstance(data, str):
        raise DataError("no data is given", "the bundle does not say what it was judged on", "give --data DATA")
    same = data == recipe.get("data")  # then what calibrated it is drawn again, and left out
    split = load(data, calibrate=str(recipe.get("calibrate", "256")) if same else None, seed=int(recipe.get("seed", 0)))
    images = split.evaluation
    assert images.labels is not None, "load refuses data without labels"
    if int(images.labels.max()) >= len(bundle.manifest.labels):
        why = f"it has a class number {int(images.labels.max())}, and the bundle knows {len(bundle.manifest.labels)}"
        raise DataError(f"{data} is not data of this bundle", why, "give the data it was exported with")
    chosen = draw(images.labels, len(images), asked.images, np.random.default_rng(asked.seed))
    notes = () if same else (f"{data} is not the data of the export: images that calibrated it may be among these",)
    return images.subset(chosen), (*split.notes, *notes)


def result_of(
    record: ProbeRecord, board: Board, packed: Packed, command: Sequence[str], no_counts: str | None
) -> Result:
    """The record with its labels, summaries and verdict. `no_counts`: why no instructions were counted."""
    labels = [image.label for image in packed.data.images]
    sides = [record.candidate, *filter(None, (record.against,))]
    if any(len(side.answers) != len(labels) for side in sides):
        raise StageError(f"{board.url} answered nonsense", "not one answer per image", "run it again")
    pairs = zip(sides, packed.bundles, strict=True)
    measured = [_measured(side, bundle, labels, no_counts) for side, bundle in pairs]
    verdict, reasons = worth.judge(record, measured[0].times)
    names = {f"{i:06}": image.ref for i, image in enumerate(packed.data.images)}
    unread = {names.get(name.partition(".")[0], name): why for name, why in record.unread.items()}
    return Result(
        complete=True,
        problem=None,
        verdict=verdict,
        reasons=reasons,
        place=_place(board, record.facts),
        facts=record.facts,
        threads=record.threads,
        data=msgspec.structs.replace(packed.data, unread=unread),
        candidate=measured[0],
        against=measured[1] if len(measured) > 1 else None,
        ratio=summary.versus(sides[0].samples_ms, sides[1].samples_ms) if len(sides) > 1 else None,
        moments=record.moments,
        command=tuple(command),
        versions=_versions(),
    )


def _measured(side: Side, bundle: Bundle, labels: Sequence[int], no_counts: str | None) -> Measured:
    m = bundle.manifest
    if side.bundle_sha256 != bundle.sha256:
        raise StageError(
            "the board measured another bundle", "its SHA-256 is not the one that was sent", "run it again"
        )
    same = {name: getattr(side, name) for name in Side.__struct_fields__ if name in Measured.__struct_fields__}
    return Measured(
        name=m.name,
        target=m.target,
        model_bytes=len(bundle.model),
        accuracy=summary.accuracy(side.answers, labels),
        times=summary.times(side.samples_ms),
        no_instructions=no_counts,
        **same,
    )


def _broken_off(asked: Request, board: Board, packed: Packed, command: Sequence[str], why: str) -> Result:
    return Result(
        complete=False,
        problem=why,
        verdict="functional-only",
        reasons=(why,),
        place=_place(board, None),
        facts=None,
        threads=asked.threads,
        data=packed.data,
        candidate=None,
        against=None,
        ratio=None,
        moments=(),
        command=tuple(command),
        versions=_versions(),
    )


def _place(board: Board, facts: Facts | None) -> Place:
    emulated = f"qemu, {board.emulates}" if board.emulates else facts.emulated if facts else None
    kind: Any = board.kind
    return Place(url=board.url, kind=kind, emulated=emulated)


def _versions() -> dict[str, str]:
    return {"shrink": shrink.__version__, "device_runner": device_runner.__version__}
