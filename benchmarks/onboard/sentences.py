"""What each row found, in a sentence for the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Result = dict[str, Any]


def planted(r: Result) -> str:
    more, apart = r["planted_share"], max(abs(ratio - 1) for ratio in r["aa_ratio"] + r["whole_process_ratio"])
    return (
        f"{r['pairs']} slow-downs of {min(more):.2%} to {max(more):.2%} in the preprocessing: {r['missed']} pass "
        f"{r['gate']}; {r['pairs']} A/A pairs: {r['false_alarms']} false alarms, at most {apart:.1g} apart; "
        f"{r['starts']} starts, {r['seconds_each']:.1f} s a count"
    )


def cuts(r: Result) -> str:
    rows = r["cuts"]
    return (
        f"{len(rows)} links cut ({', '.join(sorted({row['how'] for row in rows}))}): the command ended after at most "
        f"{max(row['ended_s'] for row in rows):.1f} s, the board was clean after at most "
        f"{max(row['clean_s'] for row in rows):.1f} s; left behind: {sum(row['left'] for row in rows)}"
    )


def parity(r: Result) -> str:
    return "; ".join(
        f"{row['target']} on {row['cpu']}: outputs of {row['same']} of {row['images']} images bit-exact, "
        f"{row['apart']:.1g} apart at most, {row['other_answers']} other answers, {row['seconds']:.0f} s"
        for row in r["rows"]
    )


def old_runtime(r: Result) -> str:
    said = (
        f"{row['apart']:.3g} from the golden outputs, {row['allowed']:.3g} allowed" if row["passed"] else "refused"
        for row in r["rows"]
    )
    return f"on {r['cpu']}: " + "; ".join(
        f"{row['target']} with {row['engine']} {words}" for row, words in zip(r["rows"], said, strict=True)
    )


SENTENCES: dict[str, Callable[[Result], str]] = {
    "planted": planted,
    "cuts": cuts,
    "parity": parity,
    "old_runtime": old_runtime,
}
