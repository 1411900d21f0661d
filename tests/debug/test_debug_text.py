"""Steps are measured by equations; the text names the culprit first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shrink.debug.layers import LayerError
from shrink.debug.parity import Step, step
from shrink.debug.render import text


def test_a_step_is_measured_by_its_scores() -> None:
    wanted = np.array([[0.0, 2.0], [4.0, 2.0]], np.float32)  # deviation sqrt(2)
    given = wanted + np.array([[0.0, -0.4], [-3.0, 0.0]], np.float32)
    found = step("a", given, "b", wanted, most=0.5)
    assert found.error == pytest.approx(np.sqrt((0.16 + 9) / 4 / 2))
    assert found.worst == pytest.approx(3 / 4)
    assert found.agreement == 0.5
    assert not found.is_sound and step("a", wanted, "b", wanted, most=0.0).is_sound


def test_scores_that_are_no_numbers_are_not_sound() -> None:
    wanted = np.ones((2, 2), np.float32)
    assert not step("a", wanted * np.nan, "b", wanted, most=1e9).is_sound


def layer(name: str, scores: float) -> LayerError:
    return LayerError(name, name, "conv2d", 35.04, 20.0, scores, 5.0, "codes")


def test_the_culprit_comes_first_and_the_layers_have_bars() -> None:
    steps = [Step("x file", "the model", 0.123, 0.2, 0.9, 0.001), Step("y", "z", 0.01, 0.02, 1.0, 0.1)]
    lines = text(["culprit: it"], steps, [layer("a", 0.04), replace(layer("b", 0.01), file_db=41.27)], 32).splitlines()
    assert lines[0] == "culprit: it" and lines[2].startswith("step, on 32 images")
    assert lines[3].endswith("12.30%  20.00%        90.0%  above 0.1%") and not lines[4].endswith("above 10.0%")
    assert lines[-3].endswith("    35.0    20.0            4.00%  " + "#" * 20)
    assert lines[-2].endswith("    35.0    20.0     41.3   1.00%  " + "#" * 5) and "in file" in lines[-4]


def test_many_layers_are_cut_short() -> None:
    steps = [Step("x", "y", 0.0, 0.0, 1.0, 0.1)]
    shown = text(["fine"], steps, [layer(str(i), 0.0) for i in range(15)], 1)
    assert shown.endswith("and 3 more, less harmful; --json lists all") and "\n14 " not in shown
    assert "layer" not in text(["fine"], steps, [], 1)
