"""Configuration errors name file, line, key, value and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from watt_node.config import ConfigError, FieldProblem, MqttSection, Section, load, parse


class Inner(Section, frozen=True, kw_only=True):
    size: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1
    mode: Literal["fast", "safe"] = "safe"
    on: bool = True
    name: Annotated[str, msgspec.Meta(pattern="^[a-z]+$")] = "a"


class Sample(Section, frozen=True, kw_only=True):
    inner: Inner
    file: Path | None = None
    many: list[Inner] = []  # noqa: RUF012
    numbers: Annotated[list[int], msgspec.Meta(max_length=3)] = []  # noqa: RUF012
    table: dict[str, int] = {}  # noqa: RUF012

    def __post_init__(self) -> None:
        if self.inner.size > 5 and self.inner.mode == "fast":
            raise FieldProblem("inner", "too large to be fast")


WHERE = Path("folder/x.toml")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("\n[inner]\nsize = 10\n", 3, "inner.size = 10: allowed is an integer 1..9"),
        ("[inner]\n\n\nsize = true\n", 4, "inner.size = true: allowed is an integer 1..9"),
        ("[inner]\nmode = 'slow'\n", 2, "inner.mode = 'slow': allowed is one of fast, safe"),
        ("[inner]\non = 1\n", 2, "inner.on = 1: allowed is true or false"),
        ("[inner]\nname = 'A'\n", 2, "inner.name = 'A': allowed is text of the form ^[a-z]+$"),
        ('[inner]\nname = "a\\n"\n', 2, "allowed is text of the form"),
        ("[inner]\nsiez = 2\n", 2, "unknown key inner.siez; did you mean 'size'? (allowed: mode, name, on, size)"),
        ("[innr]\n", 1, "unknown key innr; did you mean 'inner'? (allowed: file, inner, many, numbers, table)"),
        ("[inner]\n[[many]]\nsize=1\n[[many]]\n# x\nsize=0\n", 6, "many[1].size = 0: allowed is an integer 1..9"),
        ("[inner]\nsize = 6\nmode = 'fast'\n", 1, "inner = {'size': 6, 'mode': 'fast'}: too large to be fast"),
        ("file = 5\n[inner]\n", 1, "file = 5: allowed is a path"),
        ("numbers = [1, 2, 3, 4]\n[inner]\n", 1, "numbers = [1, 2, 3, 4]: allowed is a list, each an integer"),
        ("numbers = [\n  1,\n  'x',\n]\n[inner]\n", 1, "numbers[1] = 'x': allowed is an integer"),
        ("many = [{size = 0}]\n[inner]\n", 1, "many[0].size = 0: allowed is an integer 1..9"),
        ("# only a comment\n", 1, "missing key inner: needs a table with size, mode, on, name"),
        ("table.a = 1\ntable.b = 'x'\n[inner]\n", 2, "table.b = 'x': allowed is an integer"),
        ("inner = 3\n", 1, "inner = 3: allowed is a table"),
    ],
)
def test_given_a_wrong_value_when_read_then_the_line_says_file_line_key_value_and_allowed(
    text: str, line: int, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, Sample, WHERE)
    assert str(caught.value).startswith(f"folder/x.toml:{line}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_given_no_toml_when_read_then_the_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[inner]\nsize = \n")
    with pytest.raises(ConfigError, match=r"a\.toml:2: not TOML"):
        load(path, Sample)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "cannot read the configuration: No such file"),
        (b"\xff\xfe", ":1: not UTF-8"),
        (b"#" * (2 << 20), "bytes"),
    ],
)
def test_given_an_unusable_file_when_read_then_it_is_named(tmp_path: Path, content: bytes | None, text: str) -> None:
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=text) as caught:
        load(path, Sample)
    assert str(path) in str(caught.value)


def test_given_a_good_file_when_read_then_paths_are_relative_to_it() -> None:
    sample = parse("file = 'keys/a'\n[inner]\nsize = 5\n[table]\nx = 1\n", Sample, WHERE)
    assert sample.file == Path("folder/keys/a")
    assert sample.inner.size == 5
    assert sample.table == {"x": 1}
    assert parse("file = '/abs'\n[inner]\n", Sample, WHERE).file == Path("/abs")


def test_given_text_that_looks_like_keys_inside_values_when_read_then_lines_stay_right() -> None:
    text = 'numbers = [\n  1, # size = 3\n]\n[inner]\nname = """\nsize = 77\n"""\nsize = 10\n'
    with pytest.raises(ConfigError, match=r"x\.toml:[58]: "):
        parse(text, Sample, WHERE)
    text = "numbers = [\n  1, # ]\n  2,\n]\n[inner]\nsize = 10\n"
    with pytest.raises(ConfigError, match=r"x\.toml:6: inner\.size = 10"):
        parse(text, Sample, WHERE)


def test_given_a_remote_broker_without_tls_when_made_then_it_is_refused() -> None:
    with pytest.raises(FieldProblem, match="needs `ca`"):
        MqttSection(host="10.0.0.1", port=1883)
    MqttSection(host="127.0.0.1", port=1883)
