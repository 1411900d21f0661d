import json

import msgspec
import pytest
from report_golden import example

from shrink.errors import RequestError
from shrink.report.schema import dump, parse


def test_what_is_written_is_what_is_read() -> None:
    assert parse(dump(example())) == example()


def test_the_json_is_for_other_tools_too() -> None:
    data = json.loads(dump(example()))
    assert data["schema"] == 1
    assert data["artifacts"][0]["accuracy"]["flips_lost"] == 4
    assert list(data["seconds"]) == ["load", "calibrate", "verify"]


@pytest.mark.parametrize("where", [(), ("model",), ("data", "skipped", 0), ("artifacts", 0), ("artifacts", 1, "truth")])
def test_an_unknown_field_is_refused_at_any_depth(where: tuple[str | int, ...]) -> None:
    data = json.loads(dump(example()))
    part = data
    for step in where:
        part = part[step]
    part["colour"] = "blue"
    with pytest.raises(RequestError, match="unknown field `colour`"):
        parse(json.dumps(data).encode())


@pytest.mark.parametrize("field", ["verdict", "model", "reference", "created", "host"])
def test_a_missing_field_is_refused(field: str) -> None:
    data = json.loads(dump(example()))
    del data[field]
    with pytest.raises(RequestError, match=f"missing required field `{field}`"):
        parse(json.dumps(data).encode())


def test_another_version_is_named_before_its_fields_are() -> None:
    with pytest.raises(RequestError) as caught:
        parse(b'{"schema": 2, "anything": true}')
    assert str(caught.value).splitlines() == [
        "the report has schema 2",
        "  why: this version of shrink reads schema 1",
        "  fix: read it with the version of shrink that wrote it, or export again",
    ]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"schema": "one"}', dump(example())[:-20]])
def test_what_is_no_report_is_an_error_of_three_lines(data: bytes) -> None:
    with pytest.raises(RequestError, match="not a report that can be read") as caught:
        parse(data)
    assert len(str(caught.value).splitlines()) == 3


def test_a_report_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        example().verdict = "pass"  # type: ignore[misc]
    assert msgspec.structs.replace(example(), verdict="pass").verdict == "pass"
