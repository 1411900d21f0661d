"""What the tensors and files of every bundle are called."""

from __future__ import annotations

from typing import Literal

INPUT_NAME, OUTPUT_NAME = "image", "scores"
Codes = Literal["int8", "uint8"]
"""dtype of a file that takes grey levels."""

MODEL_NAMES = {"tflite": "model.tflite", "onnx": "model.onnx"}
