"""What each row of the runner's benchmark found, in a sentence for the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Result = dict[str, Any]


def rules(r: Result) -> str:
    return f"{r['sequences']:,} random sequences, {r['frames']:,} frames: {r['differences']} verdicts differ"


def bundles(r: Result) -> str:
    return f"{r['mutants']:,} mutated bundles: {r['loaded']} loaded"


def kills(r: Result) -> str:
    return f"{sum(r['at_calls'].values())} kills at file calls, {r['at_random']:,} at random: {len(r['broken'])} broken"


def costs(r: Result) -> str:
    inline, process, raw = (r[name]["overhead"] for name in ("inline, jpeg", "process, jpeg", "process, raw"))
    beside = f"{inline:.1%} of a 5 ms model's time inline, {process:.1%} with a process ({raw:.1%} for raw 640 x 480)"
    waits = f"; waiting for camera and broker {r['waiting_cpu']:.1%} of a processor" if "waiting_cpu" in r else ""
    first = f"first answer {r['cold_start_s']:.2f} s; {r['memory_mib']:.0f} MiB{waits}"
    return f"beside preprocessing and model {beside}; {first}"


def broker(r: Result) -> str:
    return (
        f"{r['events']} events with the broker killed or hanging: {r['alerts_arrived']} alerts arrived, "
        f"{'in order' if r['in_order'] else 'out of order'}, {r['arrived_again']} of them twice; {r['unlocks']} unlocks"
    )


def sinks(r: Result) -> str:
    none = r["fps"]["none"]
    others = ", ".join(f"{rate / none:.1%} with {name}" for name, rate in r["fps"].items() if name != "none")
    return f"of {none:.1f} frames a second answered without receivers of events, while one hangs: {others}"


def sources(r: Result) -> str:
    rows = r["faults"].values()
    return (
        f"{len(r['faults'])} faults, {sum(len(row['stalled_s']) for row in rows)} losses: stalled after at most "
        f"{max(max(row['stalled_s']) for row in rows):.1f} s, live again after at most "
        f"{max(max(row['live_s']) for row in rows):.1f} s, {sum(row['invented'] for row in rows)} frames while down"
    )


def changes(r: Result) -> str:
    s, left = r["swaps"], r["reloads"]["left_behind"]
    order = "each answered once and in order" if s["in_order"] else "not each answered once and in order"
    return (
        f"{s['swaps']} swaps of the model in {s['frames']:,} frames, {order}; {r['reloads']['reloads']} reloads, "
        f"{r['reloads']['growth_kib']} KiB more, left behind: {'; '.join(left) or 'nothing'}"
    )


def soak(r: Result) -> str:
    s, leak = r["soak"], r["control"]["slope_bytes_per_frame"]
    losses = f"{s['events']['source']} losses of the camera, {s['events']['broker']} of the broker, {s['swaps']} swaps"
    left = "; ".join(s["left_behind"]) or "nothing"
    slope = s["slope_bytes_per_frame"]
    return (
        f"{s['frames']:,} frames, {losses}: {slope:.2g} bytes a frame (planted leak: {leak:.3g}), left behind: {left}"
    )


SENTENCES: dict[str, Callable[[Result], str]] = {
    "rules": rules,
    "bundles": bundles,
    "kills": kills,
    "costs": costs,
    "broker": broker,
    "sources": sources,
    "sinks": sinks,
    "changes": changes,
    "soak": soak,
}
