"""Other kernels: which files have any, and how far these answer from XNNPACK's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from export_nets import CLASSES, SHAPE, Printed
from test_export_bundle import PREPROCESS, photo

from device_runner.engines import open_engine
from device_runner.golden import make_golden
from shrink.export import flatbuffer
from shrink.export.bundle import image_input, scores_output
from shrink.inspect.truth import inspect_bytes
from shrink.verify import kernels

Printer = Callable[..., Printed]


@pytest.mark.parametrize(
    ("net", "target", "other"),
    [("cnn", "tflite-int8-full", True), ("vit", "tflite-int8-full", True), ("cnn", "tflite-fp32", False),
     ("cnn", "onnx-int8", False), ("cnn", "tflite-dynamic", False)],
)  # fmt: skip
def test_which_files_other_kernels_answer_otherwise(made: Printer, net: str, target: str, other: bool) -> None:
    item = made(net, target)
    assert kernels.differ(inspect_bytes(item.file, item.target.format, target).truth) is other


def test_kernels_without_a_delegate_are_not_xnnpack_s(made: Printer) -> None:
    """Near the same answers, from a file of 8-bit codes; the same to the last bit they are not bound to be."""
    item = made("cnn", "tflite-int8")
    run, engine = kernels.alone(item.file), open_engine(item.file, "tflite")
    spec = image_input(SHAPE, "NHWC")
    assert run is not None and engine.delegate is not None
    images = [photo(i) for i in range(4)]
    one, other = (make_golden(images, PREPROCESS, spec, each) for each in (engine.run, run))
    apart = kernels.spread(one, other, scores_output(CLASSES))
    x = np.zeros(spec.shape, np.float32)
    assert apart < 0.1 and np.abs(engine.run(x) - run(x)).max() < 0.1


def test_the_spread_is_in_scores(made: Printer) -> None:
    """Codes of a quantized output count by their scale; a record is no distance from itself."""
    spec, output = image_input(SHAPE, "NHWC"), scores_output(3, codes=(0.25, 5))
    shifted = iter(range(9))
    one = make_golden([photo(1)], PREPROCESS, spec, lambda x: np.array([[1, 2, 3]], np.int8))
    other = make_golden([photo(1)], PREPROCESS, spec, lambda x: np.array([[1, 2, 3 + 4 * next(shifted)]], np.int8))
    assert kernels.spread(one, one, output) == 0.0
    assert kernels.spread(one, other, output) == 1.0  # of the second image: four codes


def test_a_file_that_they_do_not_take_has_no_other_kernels(made: Printer) -> None:
    """The interpreter is made of an op that nobody has a kernel for, and refuses to allocate it."""
    tree = flatbuffer.parse(made("cnn", "tflite-int8").file)
    code = tree.operatorCodes[tree.subgraphs[0].operators[0].opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = b"Unheard"
    assert kernels.alone(flatbuffer.pack(tree)) is None
