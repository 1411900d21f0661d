"""A fixed report and what the renderers make of it; run this file to write the golden files anew.

python tests/report/report_golden.py
"""

from __future__ import annotations

import io
from pathlib import Path, PurePath

from rich.console import Console

from device_runner.manifest import Accuracy, Latency, Leftover, TruthLabel
from shrink.report.markdown import render
from shrink.report.schema import (
    Artifact,
    Cross,
    Data,
    Declined,
    Model,
    Parity,
    Reference,
    Report,
    SkippedImage,
    Timing,
    dump,
)
from shrink.report.terminal import show

GOLDEN = Path(__file__).with_name("golden")
OUT = PurePath("out/deit tiny")  # the blank must be quoted in every command
HOST = "Example CPU @ 2.50GHz, 2 cores"


def example() -> Report:
    """A ViT, twice in int8: one file passes, for the other there are too few images."""
    return Report(
        command=("shrink", "export", "timm:deit_tiny_patch16_224", "--data", "my photos", "--target", "tflite-int8"),
        created="2026-11-23T14:30:00Z",
        model=Model(
            spec="timm:deit_tiny_patch16_224",
            weights="deit.safetensors",
            outputs=10,
            parameters=5_526_346,
            macs=1_074_000_000,
            checkpoint_sha256="0123456789abcdef" * 4,
        ),
        data=Data(
            name="my photos",
            calibration_images=256,
            evaluation_images=2000,
            skipped=(SkippedImage(ref="cats/broken|1.jpg", reason="the file ends too early"),),
            notes=("2 classes have fewer than 10 images",),
        ),
        reference=Reference(framework="torch 2.13.0", top1=0.874, images=2000),
        artifacts=(_tflite(), _onnx()),
        cross=(Cross(a="tflite-int8", b="onnx-int8", agreement=0.9935),),
        verdict="not enough images",
        seconds={"load": 1.2, "calibrate": 14.0, "verify": 61.3},
        versions={"shrink-vision": "0.1.0", "torch": "2.13.0", "ai-edge-litert": "2.3.0"},
        host=HOST,
    )


def _tflite() -> Artifact:
    return Artifact(
        target="tflite-int8",
        bundle="tflite-int8",
        file="model.tflite",
        size_bytes=5_712_384,
        float_size_bytes=22_200_320,
        truth=TruthLabel(
            int8_mac_share=0.951,
            dynamic_mac_share=0.951,
            int8_weight_share=0.984,
            macs=1_074_000_000,
            ops=512,
            delegate="XNNPACK",
            delegate_partitions=1,
            undelegated_ops=("GATHER",),
            leftovers=(
                Leftover(op="BATCH_MATMUL", count=24, mac_share=0.049, reason="attention keeps the answers in float"),
                Leftover(op="SOFTMAX", count=12, mac_share=0.0, reason="the runtime has no fast int8 kernel"),
            ),
            input_dtype="float32",
            output_dtype="float32",
        ),
        accuracy=Accuracy(
            images=2000,
            top1_float=0.874,
            top1=0.876,
            drop=-0.002,
            drop_low=-0.00561,
            drop_high=0.00141,
            agreement=0.9905,
            flips_lost=4,
            flips_won=8,
            p_value=0.3877,
            verdict="pass",
            max_drop=0.005,
            images_needed=None,
        ),
        latency=Latency(median_ms=8.31, p90_ms=8.9, ratio_to_float=0.351, samples=50, host=HOST),
        timing=Timing(samples_ms=(8.3, 8.31, 8.9), ratio_low=0.343, ratio_high=0.362),
        parity=Parity(max_relative_error=0.0213),
        changes=("48 linear layers to int8",),
        skipped=(Declined(what="static ranges", why="they cost 12.5 points of top-1"),),
    )


def _onnx() -> Artifact:
    return Artifact(
        target="onnx-int8",
        bundle="onnx-int8",
        file="model.onnx",
        size_bytes=5_904_000,
        float_size_bytes=None,
        truth=TruthLabel(
            int8_mac_share=0.951,
            dynamic_mac_share=0.0,
            int8_weight_share=0.984,
            macs=1_074_000_000,
            ops=731,
            delegate=None,
            delegate_partitions=None,
            undelegated_ops=(),
            leftovers=(),
            input_dtype="float32",
            output_dtype="float32",
        ),
        accuracy=Accuracy(
            images=2000,
            top1_float=0.874,
            top1=0.871,
            drop=0.003,
            drop_low=-0.00063,
            drop_high=0.00694,
            agreement=0.988,
            flips_lost=10,
            flips_won=4,
            p_value=0.1796,
            verdict="not enough images",
            max_drop=0.005,
            images_needed=2400,
        ),
        latency=Latency(median_ms=11.02, p90_ms=19.4, ratio_to_float=None, samples=50, host=HOST),
        timing=Timing(
            samples_ms=(11.0, 11.02, 19.4),
            ratio_low=None,
            ratio_high=None,
            warnings=("noisy: p90 is 1.76x the median",),
        ),
    )


def terminal(report: Report, *, width: int, is_terminal: bool) -> str:
    """What `show` writes; styles are left out, the layout is what is compared."""
    stream = io.StringIO()
    show(report, Console(file=stream, width=width, force_terminal=is_terminal, color_system=None), OUT)
    return stream.getvalue()


def outputs() -> dict[str, str]:
    """Name of a golden file -> what it must hold."""
    report = example()
    return {
        "report.json": dump(report).decode(),
        "report.md": render(report, OUT),
        "terminal.txt": terminal(report, width=100, is_terminal=True),
        "log.txt": terminal(report, width=80, is_terminal=False),
    }


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, text in outputs().items():
        (GOLDEN / name).write_text(text)
