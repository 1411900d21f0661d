"""Another form of the image at the entrance: the same function of it, at the borders too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from shrink import quantize, targets
from shrink.graph.capture import capture
from shrink.graph.entrance import Layout, with_entrance
from shrink.graph.lower import lower
from shrink.quantize.plan import make_plan

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPE = (1, 3, 14, 18)
LAYOUTS: tuple[Layout, ...] = ("NCHW", "NHWC")

STEMS = {
    "padded": nn.Conv2d(3, 8, 3, padding=1),
    "strided, one pad more at the end": nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, stride=2)),
    "rows only": nn.Conv2d(3, 8, (3, 1), padding=(1, 0)),
    "unpadded": nn.Conv2d(3, 8, 2, stride=2),
    "grouped": nn.Conv2d(3, 6, 3, padding=1, groups=3),  # reads no grey levels: normalized by arithmetic
}


def levels(seed: int = 0) -> Tensor:
    """Numbers 0..255, both among them."""
    found = torch.randint(0, 256, SHAPE, generator=torch.Generator().manual_seed(seed)).to(torch.float32)
    found[0, :, 0, 0], found[0, :, -1, -1] = 0, 255
    return found


def normalized(pixels: Tensor) -> Tensor:
    """As the device normalizes."""
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return (pixels / 255 - mean) / std


def laid_out(x: Tensor, layout: Layout) -> Tensor:
    return x.permute(0, 2, 3, 1) if layout == "NHWC" else x


def network(stem: str) -> nn.Module:
    torch.manual_seed(3)
    channels = 6 if stem == "grouped" else 8
    return nn.Sequential(STEMS[stem], nn.ReLU(), nn.Conv2d(channels, 4, 1), nn.Conv2d(4, 4, 1)).eval()


def quantized(graph_module: fx.GraphModule, *, unsigned: bool) -> fx.GraphModule:
    target = targets.load("tflite-int8")
    (scheme,) = quantize.schemes(graph_module.graph, target).values()
    calibration = [normalized(levels(seed)) for seed in range(1, 5)]
    observed = quantize.observe(graph_module, [target], calibration, normalization=(MEAN, STD))
    return quantize.apply(graph_module, make_plan(scheme, observed.ranges, every_row=True), unsigned=unsigned)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rules", [(), ("pixel_grid",)], ids=["plain", "pixel grid"])
@pytest.mark.parametrize("stem", STEMS)
def test_a_float_graph_of_pixels_is_the_module_of_normalized_ones(
    stem: str, rules: tuple[str, ...], layout: Layout
) -> None:
    module = network(stem)
    graph = capture(module, SHAPE)
    lower(graph, rules, normalization=(MEAN, STD))
    pixels = levels()
    with torch.no_grad():
        given = with_entrance(graph, layout=layout, normalization=(MEAN, STD))(laid_out(pixels, layout))
        wanted = module(normalized(pixels))
    torch.testing.assert_close(given, wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stem", [name for name in STEMS if name != "grouped"])
def test_a_quantized_graph_of_pixels_gives_the_very_same_answers(stem: str, layout: Layout, unsigned: bool) -> None:
    """The codes of the image and of its border are those of the graph that takes floats: nothing may differ."""
    graph = capture(network(stem), SHAPE)
    lower(graph, ["pixel_grid"], normalization=(MEAN, STD))
    plain = quantized(graph, unsigned=unsigned)
    direct = with_entrance(plain, layout=layout, normalization=(MEAN, STD))
    pixels = levels()
    with torch.no_grad():
        assert torch.equal(direct(laid_out(pixels, layout)), plain(normalized(pixels)))


def test_no_float_work_is_left_on_an_image_that_is_read_in_codes() -> None:
    graph = capture(network("padded"), SHAPE)
    lower(graph, ["pixel_grid"], normalization=(MEAN, STD))
    direct = with_entrance(quantized(graph, unsigned=False), layout="NHWC", normalization=(MEAN, STD))
    ops = [str(node.target) for node in direct.graph.nodes if node.op == "call_function"]
    assert not any("mul" in op or "add" in op or "pad" in op for op in ops)
    (image,) = (node for node in direct.graph.nodes if node.op == "placeholder")
    (reader,) = image.users
    assert "quantize_per_tensor" in str(reader.target) and reader.args[1:3] == (1.0, -128)


def test_the_graph_it_is_made_from_stays_and_its_weights_are_shared() -> None:
    graph = capture(network("padded"), SHAPE)
    before, places = graph.code, {p.data_ptr() for p in graph.parameters()}
    other = with_entrance(graph, layout="NHWC", normalization=(MEAN, STD))
    assert graph.code == before
    assert places == {p.data_ptr() for p in other.parameters()}


def test_another_mean_gives_another_answer() -> None:
    """The comparison above could tell."""
    module = network("padded")
    graph = capture(module, SHAPE)
    lower(graph, ["pixel_grid"], normalization=(MEAN, STD))
    pixels = levels()
    with torch.no_grad():
        given = with_entrance(graph, normalization=((0.4, 0.456, 0.406), STD))(pixels)
        wanted = module(normalized(pixels))
    inside, border = (given - wanted).abs()[..., 2:-2, 2:-2].max(), (given - wanted).abs().max()
    assert inside < 1e-4 < border  # the frame carries the mean; the weights were made with the right one
