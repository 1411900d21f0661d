"""What the tensors and files of every bundle are called."""

from __future__ import annotations

INPUT_NAME, OUTPUT_NAME = "image", "scores"
MODEL_NAMES = {"tflite": "model.tflite", "onnx": "model.onnx"}
