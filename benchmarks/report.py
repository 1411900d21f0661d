"""Writes results/README.md: every benchmark as a table, derived anew from the rows.

Example: python -m benchmarks.report
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.architectures import ZOO
from benchmarks.exports import read_report
from benchmarks.facts import BUSY, words
from benchmarks.field.sentences import SENTENCES
from benchmarks.onboard.sentences import SENTENCES as BOARD_SENTENCES
from benchmarks.peers import PEERS
from benchmarks.pruning_tables import pruning, pruning_speed, pruning_zoo
from benchmarks.remarks import doubts, failure_item, failures
from benchmarks.rows import RESULTS, Row, Store, write_whole
from benchmarks.search_tables import search
from benchmarks.tables import NONE, geometric_mean, number, percent, table, times, tiny
from benchmarks.zoo_result import Part, Result
from shrink.report.schema import Artifact
from shrink.verify.statistics import mcnemar_exact

TFLITE_PEERS = ("aeq-static", "aeq-dynamic")
ONNX_PEERS = ("ort-static", "ort-static-uint8")
PARITY, SLOWEST, AGAINST_PEERS, LARGE_BYTES = 1e-4, 0.95, 1.05, 5_000_000
UNSTABLE = 3e-5  # sensitivity above which parity says nothing


def write(results: Path = RESULTS) -> None:
    """Write the page of all tables."""
    write_whole(results / "README.md", render(results).encode())


def render(results: Path) -> str:
    """The page: one section per benchmark that has rows."""
    lines = [
        "# Results",
        "",
        "Written by `python -m benchmarks.report` from the data beside it; see [../README.md](../README.md).",
        "A ratio of times is the median over rounds in which both took turns; below 1 is faster.",
        "*busy*: other processes kept more than 0.1 cores at work meanwhile, so times are not to be trusted.",
        "",
    ]
    for benchmark, (title, section) in SECTIONS.items():
        rows = Store(benchmark, results).all()
        if rows:
            lines += [f"## {title}", "", *section(rows), "", *_conditions(rows), ""]
    return "\n".join(lines).rstrip() + "\n"


def _conditions(rows: Sequence[Row]) -> list[str]:
    """Which code and machine the rows come from; one line if all agree."""
    machines = {words(row.conditions.machine) for row in rows}
    codes = {f"{r.conditions.commit[:10]}{' with changes' if r.conditions.dirty else ''}" for r in rows}
    dates = sorted(r.date[:10] for r in rows)
    packages = ("torch", "litert-torch", "ai-edge-litert", "onnxruntime")
    versions = {", ".join(f"{name} {r.conditions.versions.get(name, '?')}" for name in packages) for r in rows}
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    return [f"{when}; {'; '.join(sorted(machines))}; commit {', '.join(sorted(codes))}; {'; '.join(sorted(versions))}."]


# --- exports: demo and accuracy -------------------------------------------------------------------------------------


def exports(rows: Sequence[Row]) -> list[str]:
    """One line per model and target."""
    header = (
        "model", "target", "images", "float top-1", "drop, points", "95 %", "agreement", "TFLite = ONNX",
        "file / float", "time / float", "int8 MACs", "partitions", "export, s", "doubts",
    )  # fmt: skip
    lines = [cells for row in rows if row.failure is None for cells in _export_lines(row)]
    return table(header, lines) + failures(rows)


def _export_lines(row: Row) -> Iterable[list[str]]:
    report = read_report(row.result)
    same = {frozenset((cross.a, cross.b)): cross.agreement for cross in report.cross}
    crossed = same.get(frozenset(("tflite-int8", "onnx-int8")))
    for artifact in report.artifacts:
        yield [
            row.name, artifact.target, str(report.data.evaluation_images), percent(report.reference.top1, 2),
            *_accuracy(artifact), percent(crossed, 2),
            number(artifact.size_bytes / artifact.float_size_bytes, 3) if artifact.float_size_bytes else NONE,
            number(artifact.latency.ratio_to_float if artifact.latency else None),
            percent(artifact.truth.int8_mac_share), str(artifact.truth.delegate_partitions or NONE),
            f"{row.result['wall_seconds']:.0f}",
            ", ".join(filter(None, (doubts(row), *(artifact.timing.warnings if artifact.timing else ())))),
        ]  # fmt: skip


def _accuracy(artifact: Artifact) -> list[str]:
    judged = artifact.accuracy
    if judged is None:
        return [NONE] * 3
    interval = f"{100 * judged.drop_low:+.2f} to {100 * judged.drop_high:+.2f}"
    return [f"{100 * judged.drop:+.2f}", interval, percent(judged.agreement, 2)]


# --- cost -----------------------------------------------------------------------------------------------------------


def cost(rows: Sequence[Row]) -> list[str]:
    """Seconds and memory of commands."""
    lines = []
    for row in rows:
        samples = row.result.get("samples_seconds", [])
        seconds = float(np.median(samples)) if samples else row.result.get("wall_seconds")
        torch = {True: "imports torch", False: "imports no torch"}.get(row.result.get("imports_torch"), "")  # type: ignore[arg-type]
        notes = ", ".join(filter(None, (torch, doubts(row))))
        lines.append([row.name, number(seconds), f"{row.peak_mib:.0f}", str(len(samples) or 1), notes])
    return table(("command", "seconds", "peak MiB", "runs", "notes"), lines) + failures(rows)


def runner(rows: Sequence[Row]) -> list[str]:
    """What the runner withstood and costs."""
    return _sentences(rows, SENTENCES)


def boards(rows: Sequence[Row]) -> list[str]:
    """What measuring on boards keeps of its promises."""
    return _sentences(rows, BOARD_SENTENCES)


def _sentences(rows: Sequence[Row], found: Mapping[str, Callable[[dict[str, Any]], str]]) -> list[str]:
    lines = [[row.name, found[row.name](row.result) if row.result else NONE, doubts(row)] for row in rows]
    return table(("row", "found", "doubts"), lines) + failures(rows)


# --- zoo ------------------------------------------------------------------------------------------------------------


def zoo(rows: Sequence[Row]) -> list[str]:
    """The verdicts first, then TFLite, ONNX, and what failed."""
    found = {row.name: result_of(row) for row in rows}
    return [
        *_zoo_verdicts(rows, found),
        *(f"- {name}: {peer.summary}, given our float file." for name, peer in PEERS.items()),
        "",
        "### TFLite",
        "",
        *_zoo_table(rows, found, "tflite", TFLITE_PEERS),
        "",
        "### ONNX",
        "",
        *_zoo_table(rows, found, "onnx", ONNX_PEERS),
        *_part_failures(rows, found),
    ]


def result_of(row: Row) -> Result:
    """The result of a zoo row, typed; a crash may have left none."""
    return msgspec.convert(row.result, type=Result)


def part(result: Result, name: str) -> Part:
    """A file of a result; an empty part if it was never begun."""
    return result.parts.get(name, Part())


def versus(result: Result, name: str, other: str) -> float | None:
    """Time of one file over time of another."""
    return times(part(result, name).samples_ms, part(result, other).samples_ms)


def worst_ratio(result: Result, name: str, others: Sequence[str]) -> float | None:
    """Time of a file over the time of the fastest of the others that were timed."""
    return max((r for other in others if (r := versus(result, name, other)) is not None), default=None)


def works(result: Result, name: str) -> bool:
    """Whether a file was made and answered."""
    return result.failure is None and name in result.parts and part(result, name).failure is None


def size_ratio(result: Result, fmt: str) -> float | None:
    """int8 file over float file."""
    small, large = part(result, f"{fmt}-int8").size_bytes, part(result, f"{fmt}-fp32").size_bytes
    return small / large if small and large else None


def _zoo_verdicts(rows: Sequence[Row], found: dict[str, Result]) -> list[str]:
    lines = []
    machines = {row.name: words(row.conditions.machine) for row in rows}
    for fmt, peers in (("tflite", TFLITE_PEERS), ("onnx", ONNX_PEERS)):
        int8, n = f"{fmt}-int8", len(found)
        good = {name: result for name, result in found.items() if works(result, int8)}
        ratios = {name: r for name, result in good.items() if (r := versus(result, int8, f"{fmt}-fp32")) is not None}
        beaten = {name: r for name, result in good.items() if (r := worst_ratio(result, int8, peers)) is not None}
        lines += [
            f"- {fmt}: {len(good)} of {n} convert and run.",
            f"- {fmt}: int8 / float time, geometric mean {_means(ratios, machines)}; "
            f"above {SLOWEST}: {_names(ratios, lambda r: r > SLOWEST, number)}.",
            f"- {fmt}: above {AGAINST_PEERS} x the better of {' and '.join(peers)} ({len(beaten)} compared): "
            f"{_names(beaten, lambda r: r > AGAINST_PEERS, number)}.",
            *_written_verdicts(found, fmt),
        ]
    return lines


def _written_verdicts(found: dict[str, Result], fmt: str) -> list[str]:
    """What is true of the files on any machine."""
    parity = {name: part(result, f"{fmt}-fp32").max_relative_error for name, result in found.items()}
    sizes = {
        name: r
        for name, result in found.items()
        if works(result, f"{fmt}-int8")
        and part(result, f"{fmt}-fp32").size_bytes > LARGE_BYTES
        and (r := size_ratio(result, fmt)) is not None
    }
    return [
        f"- {fmt}: float parity above {PARITY:g}: {_names(parity, lambda e: e > PARITY, tiny)}.",
        f"- {fmt}: file / float above 0.28 for {len(sizes)} floats over 5 MB: "
        f"{_names(sizes, lambda r: r > 0.28, lambda r: number(r, 3))}.",
    ]


def _means(ratios: Mapping[str, float], machines: Mapping[str, str]) -> str:
    """A mean for each machine, on which what int8 gains depends more than on the network, and one of all."""
    lines = []
    for machine in sorted({machines[name] for name in ratios}):
        mine = [ratio for name, ratio in ratios.items() if machines[name] == machine]
        lines.append(f"{number(geometric_mean(mine))} of {len(mine)} ({machine})")
    whole = f"{number(geometric_mean(list(ratios.values())))} of {len(ratios)}: " if len(lines) > 1 else ""
    return whole + ", ".join(lines) or NONE


def _names(
    values: dict[str, float | None] | dict[str, float], wrong: Callable[[float], bool], show: Callable[[float], str]
) -> str:
    return ", ".join(f"{name} {show(v)}" for name, v in values.items() if v is not None and wrong(v)) or "none"


def _zoo_table(rows: Sequence[Row], found: dict[str, Result], fmt: str, peers: Sequence[str]) -> list[str]:
    header = (
        "model", "kind", "M params", "M MACs", "float parity", "float, ms", "int8 / float",
        *(f"{peer} / float" for peer in peers), "int8 / best peer", "file / float", "int8 MACs", "partitions",
        "agreement", "noise", *(f"{peer} noise" for peer in peers), "doubts",
    )  # fmt: skip
    lines = []
    for row in rows:
        result, base, name = found[row.name], f"{fmt}-fp32", f"{fmt}-int8"
        floats, mine = part(result, base), part(result, name)
        others = result.timing_others_busy.get(fmt, 0.0)
        lines.append([
            row.name, ZOO[row.name].kind if row.name in ZOO else "", number(result.parameters / 1e6, 1),
            number(result.macs / 1e6, 0), tiny(floats.max_relative_error),
            number(float(np.median(floats.samples_ms)) if floats.samples_ms else None, 1),
            _or_failed(mine, number(versus(result, name, base))),
            *(_or_failed(part(result, peer), number(versus(result, peer, base))) for peer in peers),
            number(worst_ratio(result, name, peers)), number(size_ratio(result, fmt), 3), percent(mine.int8_macs),
            NONE if mine.partitions is None else str(mine.partitions), percent(mine.agreement, 0),
            number(mine.noise, 3), *(number(part(result, peer).noise, 3) for peer in peers),
            ", ".join(filter(None, ("busy" if others > BUSY else "", _unstable(result)))),
        ])  # fmt: skip
    return table(header, lines)


def _unstable(result: Result) -> str:
    """A doubt about parity: the network itself magnifies rounding errors."""
    return f"unstable weights ({tiny(result.sensitivity)})" if result.sensitivity > UNSTABLE else ""


def _or_failed(one: Part, text: str) -> str:
    return "failed" if one.failure else text


def coverage(rows: Sequence[Row]) -> list[str]:
    """What converts and answers, without times."""
    found = {row.name: result_of(row) for row in rows}
    names = ("tflite-fp32", "tflite-int8", "onnx-fp32", "onnx-int8")
    counts = ", ".join(f"{name} {sum(works(r, name) for r in found.values())}" for name in names)
    header = (
        "model", "kind", "parity tflite", "parity onnx", "noise tflite-int8", "noise onnx-int8", "int8 MACs",
        "partitions", "outside the delegate", "seconds", "doubts",
    )  # fmt: skip
    lines = []
    for row in rows:
        result = found[row.name]
        small = part(result, "tflite-int8")
        lines.append([
            row.name, ZOO[row.name].kind if row.name in ZOO else "",
            *(_or_failed(part(result, n), tiny(part(result, n).max_relative_error)) for n in names[::2]),
            *(_or_failed(part(result, n), number(part(result, n).noise, 3)) for n in names[1::2]),
            percent(small.int8_macs), NONE if small.partitions is None else str(small.partitions),
            " ".join(small.undelegated), f"{row.seconds:.0f}", _unstable(result),
        ])  # fmt: skip
    intro = f"Of {len(rows)} architectures convert and answer: {counts}."
    verdicts = [line for fmt in ("tflite", "onnx") for line in _written_verdicts(found, fmt)]
    return [intro, "", *verdicts, "", *table(header, lines), *_part_failures(rows, found)]


def _part_failures(rows: Sequence[Row], found: dict[str, Result]) -> list[str]:
    """Every failure once: several files of a model often fail alike."""
    lines: list[str] = []
    for row in rows:
        said: dict[str, list[str]] = {}
        if row.failure is not None:
            said.setdefault(str(row.failure), []).append("all")
        for name, one in found[row.name].parts.items():
            if one.failure is not None:
                said.setdefault(str(one.failure), []).append(f"{name} ({one.stage})")
        lines += [failure_item(f"{row.name}, {', '.join(where)}", text) for text, where in said.items()]
    return ["", "### Failures", "", *lines] if lines else []


def tuned(rows: Sequence[Row]) -> list[str]:
    """The exports as elsewhere, then a sentence for each of the other rows."""
    found = {row.name: row.result for row in rows if row.failure is None}
    lines = exports([row for row in rows if "report" in row.result or row.failure is not None])
    if (half := found.get("half_student")) is not None:
        gains = [100 * (a - b) for a, b in zip(half["top1"]["distilled"], half["top1"]["labels"], strict=True)]
        lines += [
            f"A CNN half as wide, trained on few images: from labels "
            f"{', '.join(percent(one, 2) for one in half['top1']['labels'])}, from the whole CNN's answers "
            f"{', '.join(percent(one, 2) for one in half['top1']['distilled'])} of {half['images']:,} test images: "
            f"{', '.join(f'{gain:+.2f}' for gain in gains)} points; McNemar p per seed "
            f"{', '.join(tiny(mcnemar_exact(*pair)) for pair in zip(half['lost'], half['won'], strict=True))}.",
            "",
        ]
    if (two := found.get("processes")) is not None:
        worst = two["largest_difference_of_largest_loss"]
        lines += [f"Two processes and one give the same loss curve to {tiny(worst)} of its largest value.", ""]
    if (loop := found.get("throughput")) is not None:
        lines += [f"The loop does {percent(loop['throughput_of_bare'])} of the steps of a bare one.", ""]
    return lines


SECTIONS: dict[str, tuple[str, Callable[[Sequence[Row]], list[str]]]] = {
    "demo": ("Demo models, Fashion-MNIST", exports),
    "accuracy": ("Trained models", exports),
    "export_cost": ("Cost of the commands", cost),
    "device_runner": ("The runner in the field", runner),
    "boards": ("Measuring on boards", boards),
    "zoo": ("Zoo, random weights, one thread", zoo),
    "pruning": ("Pruned networks, fitted without labels", pruning),
    "pruning_zoo": ("Pruning of the zoo, random weights", pruning_zoo),
    "pruning_speed": ("Speed of pruned networks, random weights", pruning_speed),
    "search": ("Search", search),
    "tune": ("Trained networks", tuned),
    "coverage": ("Coverage, random weights, no timing", coverage),
}


if __name__ == "__main__":
    write()
