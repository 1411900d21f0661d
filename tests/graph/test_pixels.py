"""Reading grey levels: the same function in float, and an input whose codes are exact."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from shrink import quantize, targets
from shrink.graph.capture import capture
from shrink.graph.lower import lower

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def image(seed: int = 0) -> torch.Tensor:
    levels = torch.randint(0, 256, (1, 3, 16, 16), generator=torch.Generator().manual_seed(seed))
    return (levels / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


STEMS = {
    "padded": nn.Conv2d(3, 8, 3, padding=1),
    "no bias, strided": nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
    "unlike padding": nn.Conv2d(3, 8, (3, 5), padding=(1, 2)),
    "asymmetric pad before": nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, stride=2)),
    "unpadded": nn.Conv2d(3, 8, 4, stride=4),
}


@pytest.mark.parametrize("name", STEMS)
def test_the_function_is_the_same_at_the_borders_too(name: str) -> None:
    net = nn.Sequential(STEMS[name], nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    graph = capture(net, (1, 3, 16, 16))
    lines = lower(graph, ["pixel_grid"], normalization=(MEAN, STD))
    assert any("grey levels" in line for line in lines)
    with torch.no_grad():
        torch.testing.assert_close(graph(image()), net(image()), rtol=1e-4, atol=1e-4)


def test_the_codes_of_the_image_are_its_grey_levels() -> None:
    """Scale 1 and zero point -128 whatever the calibration images held: every level has its own code."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    target = targets.load("tflite-int8")
    graph = capture(net, (1, 3, 16, 16))
    lower(graph, [*target.rewrites, "pixel_grid"], normalization=(MEAN, STD))
    (scheme,) = quantize.schemes(graph.graph, target).values()
    observed = quantize.observe(graph, [target], [torch.zeros(1, 3, 16, 16)], normalization=(MEAN, STD))
    from shrink.quantize.plan import make_plan

    codes = make_plan(scheme, observed.ranges, every_row=True).codes
    (name,) = scheme.fixed
    assert (codes[name].scale, codes[name].zero_point) == (1.0, -128)


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.ReLU(), nn.Conv2d(3, 8, 3)),  # the image is read by something else first
        nn.Conv2d(3, 6, 3, groups=3),  # grouped
    ],
)
def test_another_beginning_is_left_alone(net: nn.Module) -> None:
    graph = capture(net.eval(), (1, 3, 16, 16))
    assert not lower(graph, ["pixel_grid"], normalization=(MEAN, STD))
