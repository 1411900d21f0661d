"""Files are printed once for all tests: a TFLite conversion takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
from export_nets import Printed, printed

Printer = Callable[..., Printed]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, which wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def made() -> Printer:
    """`made(net, target, border, floats)`: a file, converted on first use."""
    once = cache(printed)
    return lambda net, target, border=None, floats=(): once(net, target, border, floats)
