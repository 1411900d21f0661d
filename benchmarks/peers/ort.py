"""Quantize a float .onnx with onnxruntime.quantization.quantize_static; needs only onnxruntime, onnx and numpy."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

ACTIVATIONS = {"int8": "QInt8", "uint8": "QUInt8"}  # the first is the default


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", action="version", version=f"onnxruntime {version('onnxruntime')}")
    parser.add_argument("--model", type=Path, required=True, help="float .onnx that takes (1, C, H, W)")
    parser.add_argument("--images", type=Path, required=True, help=".npy, normalized, (n, C, H, W)")
    parser.add_argument("--recipe", choices=ACTIVATIONS, required=True, help="type of the activations")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()

    import numpy as np
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            self.images = iter(np.load(asked.images))

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {name: image[None]}

    name = onnx.load(asked.model).graph.input[0].name
    prepared = asked.out.with_name("prepared.onnx")
    try:  # its manual advises this step; where it fails, the step itself works on the plain file
        quant_pre_process(str(asked.model), str(prepared))
    except Exception as error:
        print(f"quant_pre_process failed: {error}")
        prepared = asked.model
    quantize_static(
        str(prepared), str(asked.out), Reader(), activation_type=getattr(QuantType, ACTIVATIONS[asked.recipe])
    )


if __name__ == "__main__":
    main()
