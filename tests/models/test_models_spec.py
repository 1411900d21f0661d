"""How a model is named."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrink.errors import ModelError
from shrink.models.spec import parse

VALUES = st.one_of(
    st.integers(),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
)


@pytest.mark.parametrize(
    ("text", "source", "name"),
    [
        ("torchvision:resnet18", "torchvision", "resnet18"),
        ("timm:resnet18.a1_in1k", "timm", "resnet18.a1_in1k"),
        ("my/models.py:cnn", "my/models.py", "cnn"),
        (r"C:\models\net.py:cnn", r"C:\models\net.py", "cnn"),
        ("package.module:factory", "package.module", "factory"),
    ],
)
def test_source_and_name(text: str, source: str, name: str) -> None:
    spec = parse(text)
    assert (spec.source, spec.name, spec.arguments) == (source, name, {})


@given(st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True), VALUES, max_size=4))
def test_arguments_come_back_as_they_were_written(arguments: dict[str, int | float | bool]) -> None:
    query = "&".join(f"{key}={str(value).lower()}" for key, value in arguments.items())
    read = parse(f"timm:x?{query}").arguments
    assert read == arguments
    assert [type(value) for value in read.values()] == [type(value) for value in arguments.values()]


@given(st.text(min_size=1).filter(lambda text: text.strip("+-.0123456789eE")))
def test_other_text_stays_text(text: str) -> None:
    value = parse(f"timm:x?a={quote(text, safe='')}").arguments["a"]
    assert value == text or text.lower() in ("true", "false")


def test_a_bare_name_is_answered_with_how_to_write_it() -> None:
    with pytest.raises(ModelError, match="write torchvision:resnet18 or timm:resnet18") as caught:
        parse("resnet18")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("query", ["num_classes", "=5", "a=1&a=2", "a=1&&b=2", "2a=1"])
def test_unreadable_arguments_are_refused(query: str) -> None:
    with pytest.raises(ModelError, match="arguments are key=value"):
        parse(f"timm:resnet18?{query}")
