"""The rows of `benchmarks.pruning` and `benchmarks.pruning_zoo` as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.remarks import doubts, failures
from benchmarks.rows import Row
from benchmarks.tables import NONE, number, percent, table, tiny


def pruning(rows: Sequence[Row]) -> list[str]:
    """One line per network and factor."""
    header = ("row", "images", "top-1 before", "after", "points lost", "agreement", "MACs left", "parameters left",
              "pruning, s", "with loading and judging, s", "CPU, s", "doubts")  # fmt: skip
    lines = []
    for row in (row for row in rows if row.failure is None):
        judged, result = row.result["judged"], row.result
        before, after = judged["top1_before"], judged["top1_after"]
        lines.append([
            f"{row.name}, {row.settings['score']}", f"{judged['images']:,.0f}", percent(before, 2), percent(after, 2),
            number(100 * (before - after)), percent(judged["agreement"], 2),
            percent(result["macs_after"] / result["macs_before"]),
            percent(_share(result, "parameters")),
            number(result.get("pruning_seconds"), 0), f"{result['wall_seconds']:.0f}",
            number(result.get("cpu_seconds"), 0), doubts(row),
        ])  # fmt: skip
    return table(header, lines) + failures(rows)


def _share(result: Mapping[str, Any], what: str) -> float | None:
    """What is left, 0..1; a peer does not count parameters."""
    return result[f"{what}_after"] / result[f"{what}_before"] if f"{what}_after" in result else None


def pruning_zoo(rows: Sequence[Row]) -> list[str]:
    """One line per architecture."""
    header = ("architecture", "MACs left", "groups", "layers that stay", "error", "change of the scores", "tflite",
              "capture, s", "prune, s", "both, CPU s", "Torch-Pruning", "doubts")  # fmt: skip
    good = [row for row in rows if row.failure is None]
    lines = [[
        row.name, percent(row.result["macs_after"] / row.result["macs_before"]), str(row.result["groups"]),
        str(row.result["frozen"]), tiny(row.result["error"]), tiny(row.result["change"]),
        tiny(row.result.get("tflite_error")), f"{row.result['seconds']['capture']:.1f}",
        f"{row.result['seconds']['prune']:.1f}", number(sum(row.result["cpu_seconds"].values()), 1),
        _peer_said(row.result.get("torch_pruning")), doubts(row),
    ] for row in good]  # fmt: skip
    seconds = sorted(sum(row.result["seconds"].values()) for row in good) or [0.0]
    worked = sorted(sum(row.result["cpu_seconds"].values()) for row in good) or [0.0]
    intro = (
        f"{len(good)} of {len(rows)} architectures can be pruned by 30 % of their multiply-accumulates and then answer "
        "as the whole network does with the same channels set to zero (*error*, relative); "
        f"capture and pruning take {median(seconds):.1f} s (median), {seconds[-1]:.1f} s at most; "
        f"of the processors' time {median(worked):.1f} and {worked[-1]:.1f} s."
    )
    asked = [row.result["torch_pruning"] for row in rows if "torch_pruning" in row.result]
    if asked:
        peer = sum(said["failure"] is None for said in asked)
        intro += (
            f" Torch-Pruning, asked for {len(asked)} of them with 100 s each, gives a model that answers for {peer}; "
            "its seconds and the share of the multiply-accumulates that it leaves stand beside ours."
        )
    return [intro, "", *table(header, lines), *failures(rows)]


def _peer_said(said: Mapping[str, Any] | None) -> str:
    if said is None:
        return NONE
    if said["failure"] is not None:
        return f"fails: {said['failure']['why'][:80]}"
    return f"{said['seconds']:.1f} s, {percent(said['macs_after'] / said['macs_before'])}"


SHARE = 0.8  # of the reduction of the multiply-accumulates that time should follow


def pruning_speed(rows: Sequence[Row]) -> list[str]:
    """One line per network and kind of file."""
    header = ("network", "file", "MACs, times fewer", "time, times less", "95 %", "speed / MACs", "ms before", "after",
              "doubts")  # fmt: skip
    lines, shares = [], []
    for row in (row for row in rows if row.failure is None):
        fewer = row.result["macs_before"] / row.result["macs_after"]
        for kind in ("tflite-fp32", "tflite-int8"):
            found = row.result[kind]
            shares.append(found["speedup"] / fewer)
            before, after = (median(found[f"{size}_ms"]) for size in ("whole", "small"))
            interval = f"{found['speedup_low']:.2f} to {found['speedup_high']:.2f}"
            lines.append([
                row.name, kind, number(fewer), number(found["speedup"]), interval, number(shares[-1]),
                number(before), number(after), doubts(row),
            ])  # fmt: skip
    enough = sum(share >= SHARE for share in shares)
    intro = f"{enough} of {len(shares)} files are faster by at least {SHARE} of the reduction of multiply-accumulates."
    return [intro, "", *table(header, lines), *failures(rows)]
