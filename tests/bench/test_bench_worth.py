"""What a measurement is worth: a quiet board is trusted, and every flaw is named by exactly one reason."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from device_runner.probe.record import Facts, Moment, ProbeRecord, SelfTested, Side
from shrink.bench.result import Verdict
from shrink.bench.summary import times
from shrink.bench.worth import RULES, judge

FACTS = Facts(
    machine="aarch64", model="Raspberry Pi 5", cpu=None, cpu_parts=("0xd0b",), features=("asimddp",), cores=4,
    memory_mb=8000.0, kernel="6.6", system="Debian", libc="glibc 2.36", python="3.11.2", packages={}, emulated=None,
)  # fmt: skip
MOMENT = Moment(
    at_s=0.0, governors=("performance",), mhz=(2400.0,), max_mhz=(2400.0,), celsius=48.0, throttled=0, load=0.1,
    pressure=0.0, available_mb=7000.0, swap_mb=0.0,
)  # fmt: skip
STEADY = (tuple([60.0, 60.5] * 120),) * 5  # 1200 samples in 72 s
SIDE = Side(
    bundle_sha256="0" * 64, model_sha256="1" * 64, engine="litert", engine_version="2.3.0",
    delegate="XNNPACK, 1 partition", selftest=SelfTested(images=1, worst_pixel=0, worst_output=0.0, tolerance=1.0),
    answers=(), scores=(), outputs_sha256=(), load_ms=1.0, first_ms=1.0, samples_ms=STEADY, warm=(True,) * 5,
    stages_ms={}, memory_mb=30.0, peak_mb=60.0,
)  # fmt: skip


def verdict(
    *, facts: dict[str, Any] | None = None, moments: tuple[dict[str, Any], ...] = ({},), **side: Any
) -> tuple[Verdict, tuple[str, ...]]:
    """Of the quiet board with these changes."""
    change = msgspec.structs.replace
    record = ProbeRecord(
        facts=change(FACTS, **facts or {}), threads=1, candidate=change(SIDE, **side), against=None,
        moments=tuple(change(MOMENT, **one) for one in moments), unread={},
    )  # fmt: skip
    return judge(record, times(record.candidate.samples_ms))


def test_a_quiet_board_is_trusted() -> None:
    assert verdict(moments=({}, {}, {})) == ("trusted", ())


FLAWS: list[tuple[str, dict[str, Any]]] = [
    ("governor is not known", {"moments": ({"governors": ()},)}),
    ("governor is ondemand, not performance", {"moments": ({"governors": ("ondemand",)},)}),
    ("frequency is not known", {"moments": ({"mhz": (), "max_mhz": ()},)}),
    ("frequency fell to 62%", {"moments": ({}, {"mhz": (1500.0,)})}),
    ("under-voltage and throttling", {"moments": ({}, {"throttled": 0x50005})}),
    ("temperature is not known", {"moments": ({"celsius": None},)}),
    ("other programs waited for a core 12 %", {"moments": ({"pressure": 12.0},)}),
    ("whether other programs ran is not known", {"moments": ({"pressure": None, "load": None},)}),
    ("64 MB were swapped out", {"moments": ({}, {"swap_mb": 64.0})}),
    ("few: 500 samples", {"samples_ms": ((150.0,) * 100,) * 5}),
    ("few: 5000 samples in 5 s", {"samples_ms": ((1.0,) * 1000,) * 5}),
    ("1 repetitions, 3 are wanted", {"samples_ms": ((60.0,) * 1200,), "warm": (True,)}),
    ("repetitions are 7% apart", {"samples_ms": ((60.0,) * 300, (64.0,) * 300, (60.0,) * 300, (60.0,) * 300)}),
    ("slowed down to 91%", {"samples_ms": ((60.0,) * 300 + (66.0,) * 100,) * 3 + ((66.0,) * 400,) * 3}),
    ("noisy: p90 is 2.00x", {"samples_ms": (tuple([60.0] * 200 + [120.0] * 40),) * 5}),
    ("settled before 2 of 5", {"warm": (False, True, False, True, True)}),
    ("no delegate was applied", {"delegate": None}),
]


@pytest.mark.parametrize(("words", "flaw"), FLAWS, ids=[words for words, _ in FLAWS])
def test_every_flaw_is_named(words: str, flaw: dict[str, Any]) -> None:
    found, reasons = verdict(**flaw)
    assert found == "indicative"
    assert any(words in reason for reason in reasons), reasons
    assert len(reasons) == (2 if words.startswith("slowed") else 1), reasons


def test_bits_of_the_past_do_not_count() -> None:
    """Bits 16 to 19 of get_throttled are of the time since boot, perhaps long before."""
    assert verdict(moments=({"throttled": 0xF0000},))[0] == "trusted"


def test_onnx_runtime_needs_no_delegate() -> None:
    assert verdict(engine="onnxruntime", delegate=None)[0] == "trusted"


def test_an_emulated_board_is_functional_only_whatever_else_holds() -> None:
    found, reasons = verdict(facts={"emulated": "the board is linux,dummy-virt"})
    assert found == "functional-only" and reasons == (
        "emulated (the board is linux,dummy-virt): its time says nothing of a device",
    )


def test_without_times_it_is_functional_only() -> None:
    assert verdict(samples_ms=(), warm=()) == ("functional-only", ("no times were taken",))


def test_every_rule_is_tried_above() -> None:
    assert len(RULES) == 12
