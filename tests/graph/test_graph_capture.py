"""The captured graph is the user's model, and nothing but what depends on the image."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from graph_nets import LIBRARY_NETS, NETS, SHAPE, Fn, answer, images, lively, ops
from torch import Tensor, fx, nn
from torch.nn import functional as F

from shrink.errors import CaptureError
from shrink.graph.capture import capture
from shrink.graph.shapes import input_shape

EVERY = {**NETS, **LIBRARY_NETS}
HERE = Path(__file__).name


@pytest.fixture(scope="module", params=EVERY)
def captured(request: pytest.FixtureRequest) -> tuple[nn.Module, dict[str, Tensor], fx.GraphModule]:
    """A module, what its weights were before, and its graph."""
    module = lively(EVERY[request.param]())
    before = copy.deepcopy(module.state_dict())
    return module, before, capture(module, SHAPE)


def test_the_graph_answers_what_the_module_answers(captured: Any) -> None:
    module, _, graph_module = captured
    for image in images():
        torch.testing.assert_close(answer(graph_module, image), answer(module, image), rtol=1e-5, atol=2e-6)


def test_the_module_is_left_as_it_was(captured: Any) -> None:
    module, before, graph_module = captured
    answer(graph_module, images(1)[0])
    after = module.state_dict()
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value), name


def test_everything_in_the_graph_depends_on_the_image(captured: Any) -> None:
    _, _, graph_module = captured
    depends: set[fx.Node] = set()
    for node in graph_module.graph.nodes:
        if node.op == "placeholder" or any(n in depends for n in node.all_input_nodes):
            depends.add(node)
        else:
            assert node.op == "get_attr", f"{node} could have been computed once: {node.target}"


def test_no_batch_norm_dropout_copy_or_view_is_left(captured: Any) -> None:
    left = {name.split(".")[0] for name in ops(captured[2])}
    assert not left & {"_native_batch_norm_legit_no_training", "batch_norm", "dropout", "clone", "view", "copy_"}


def test_every_value_knows_its_shape_dtype_and_layer(captured: Any) -> None:
    _, _, graph_module = captured
    values: dict[str, Any] = {}

    class Run(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            values[n.name] = super().run_node(n)
            return values[n.name]

    with torch.no_grad():
        Run(graph_module).run(images(1)[0])
    for node in graph_module.graph.nodes:
        if isinstance(values[node.name], Tensor) and node.op != "output":
            assert (node.meta["shape"], node.meta["dtype"]) == (values[node.name].shape, values[node.name].dtype), node
        assert isinstance(node.meta.get("layer", ""), str)
    assert input_shape(graph_module) == SHAPE


def test_no_unused_weight_is_carried_along(captured: Any) -> None:
    _, _, graph_module = captured
    used = {node.target for node in graph_module.graph.nodes if node.op == "get_attr"}
    assert {name for name, _ in [*graph_module.named_parameters(), *graph_module.named_buffers()]} == used


def test_a_layer_is_known_by_its_path() -> None:
    graph_module = capture(lively(NETS["encoder"]()), SHAPE)
    layers = [node.meta["layer"] for node in graph_module.graph.nodes if node.target is torch.ops.aten.linear.default]
    assert layers[-3:] == ["3.mlp.0", "3.mlp.3", "3.head"]


def test_the_graph_can_be_copied_and_called_in_a_thread_of_its_own() -> None:
    graph_module = capture(lively(NETS["residual"]()), SHAPE)
    image = images(1)[0]
    assert torch.equal(answer(copy.deepcopy(graph_module), image), answer(graph_module, image))


class Writes(nn.Module):
    """Changes its input in place, and counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return x.sub_(0.5).mul_(2).flatten(1)


def test_neither_image_nor_buffer_is_written_to() -> None:
    module = Writes().eval()
    graph_module = capture(module, SHAPE)
    image = images(1)[0]
    kept = image.clone()
    torch.testing.assert_close(answer(graph_module, image), (kept - 0.5).mul(2).flatten(1))
    assert torch.equal(image, kept)
    assert module.calls.item() == 0
    assert torch.equal(answer(capture(Fn(lambda x: x.add_(1)), SHAPE), image), kept + 1)


def test_a_dict_or_list_with_one_tensor_is_a_tensor() -> None:
    image = images(1)[0]
    for wrap in (lambda x: {"logits": x * 2}, lambda x: [x * 2], lambda x: (x * 2,)):
        assert torch.equal(answer(capture(Fn(wrap), SHAPE), image), image * 2)


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 0:  # the line that must be named
            return x.flatten(1)
        return -x.flatten(1)


class Counts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        many = int((x > 0).sum())  # the line that must be named
        return x.flatten(1)[:, :many]


class Selects(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0][None]  # the line that must be named


class Loops(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while x.abs().max() > 1:  # the line that must be named
            x = x / 2
        return x


@pytest.mark.parametrize("module", [Branches(), Counts(), Selects(), nn.Sequential(nn.ReLU(), Loops())], ids=str)
def test_a_forward_that_depends_on_pixels_is_refused_with_its_line(module: nn.Module) -> None:
    culprit = module[1] if isinstance(module, nn.Sequential) else module
    lines, first = inspect.getsourcelines(type(culprit))
    number = first + next(i for i, line in enumerate(lines) if "must be named" in line)
    with pytest.raises(CaptureError, match="depend") as caught:
        capture(module, SHAPE)
    assert f'{HERE}", line {number}, in forward' in str(caught.value)
    assert "pixel values" in str(caught.value)


def test_an_index_that_does_not_depend_on_the_image_is_fine() -> None:
    mask = torch.tensor([1, 0, 1])
    image = images(1)[0]
    graph_module = capture(Fn(lambda x: x[:, mask.nonzero()[:, 0]]), SHAPE)
    assert torch.equal(answer(graph_module, image), image[:, [0, 2]])


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Misfit(nn.Module):
    """Its linear does not fit the image."""

    LINE = inspect.currentframe().f_lineno + 3  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, torch.zeros(4, 99))


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (TwoInputs(), "missing a required argument: 'y'"),
        (Fn(lambda x: (x, x + 1)), "1 inputs and gives 2 outputs"),
        (Fn(lambda x: {"a": x, "b": x + 1, "c": x}), "1 inputs and gives 3 outputs"),
        (Fn(lambda x: None), "one tensor of scores"),
        (Misfit(), rf'same reduction dim.* at File .*{HERE}", line {Misfit.LINE}, in forward'),
    ],
)
def test_what_is_no_classifier_is_refused(module: nn.Module, words: str) -> None:
    with pytest.raises(CaptureError, match=words) as caught:
        capture(module, SHAPE)
    assert caught.value.exit_code == 1
    assert "branches" not in caught.value.fix


def test_capture_switches_to_inference_mode() -> None:
    module = NETS["plain"]().train()
    capture(module, SHAPE)
    assert not any(part.training for part in module.modules())


@pytest.mark.parametrize(
    ("module", "what"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), torch.jit.script(nn.Sequential(nn.ReLU()))), "layer '1' is TorchScript"),
        (torch.jit.trace(nn.Conv2d(3, 4, 3).eval(), torch.zeros(SHAPE)), "the model is TorchScript"),
    ],
)
def test_compiled_code_is_refused(module: nn.Module, what: str) -> None:
    with pytest.raises(CaptureError, match=what) as caught:
        capture(module, SHAPE)
    assert "state_dict" in caught.value.fix


def test_an_error_is_placed_beside_a_forward_that_is_no_function() -> None:
    """As torch.jit gives its modules one: looking it up on the class already fails."""

    class Odd:
        def __get__(self, module: object, kind: object) -> object:
            if module is None:
                raise AttributeError
            return lambda x: x.unknown()

    class Part(nn.Module):
        forward = Odd()

    with pytest.raises(CaptureError, match="cannot be captured"):
        capture(nn.Sequential(Part()), SHAPE)
