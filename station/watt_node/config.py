"""TOML files to frozen Structs, with errors a person can act on.

Every daemon of the project reads its configuration through `load`. A wrong file stops the daemon with one line that
names the file, the line, the key, the value found and what is allowed there; a key nobody reads is refused (a
misspelt key would otherwise silently mean "the default"). Types are taken from the Struct: int, str, bool, Path
(relative to the folder of the file), Literal, `X | None`, lists, dicts of str and nested Structs, with the bounds
of `msgspec.Meta`. A Struct may refuse combinations in `__post_init__` by raising `FieldProblem(key, text)`.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import inspect

Line = dict[tuple[str | int, ...], int]
"""Where a key stands: path of table names, array indexes and the key, to a line number counted from 1."""

MAX_CONFIG_BYTES = 1 << 20
"""A daemon's file has some hundred lines; a larger one is a mistake (a log or a key store given by accident)."""
MAX_SHOWN = 60
"""Characters of a wrong value repeated in the message: enough to recognise it, short enough for one line."""

_TABLE = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_TOML_LINE = re.compile(r"\(at line (\d+), column \d+\)|\(at end of document\)")


class ConfigError(Exception):
    """A configuration that cannot be used; the text is complete and meant for the operator."""


class FieldProblem(ValueError):
    """Raised by a section's `__post_init__`: `key` is the field to point at, `text` what is wrong with it."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(f"{key}: {text}")
        self.key = key
        self.text = text


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every section. Subclasses repeat `frozen=True, kw_only=True`: msgspec does not inherit kw_only."""


class ClockSection(Section, frozen=True, kw_only=True):
    """`[clock]`: protocol time = protocol_start_s + (machine ms - machine_start_ms) * speed // 1000.

    The same three numbers in every daemon of a network. Absent = the protocol clock is the machine's clock.
    """

    machine_start_ms: Annotated[int, msgspec.Meta(ge=0)] = 0
    protocol_start_s: Annotated[int, msgspec.Meta(ge=0)] = 0
    speed: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1


class NetworkSection(Section, frozen=True, kw_only=True):
    """`[network]`: the signed genesis file and the regulator's public key (128 hex digits) it must carry."""

    genesis: Path
    regulator: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{128}$")]


class NodeSection(Section, frozen=True, kw_only=True):
    """`[node]`: which validator this is. `key` is the file of the validator key, `data` the folder it writes to.

    `transactions_max` is the most this node puts into a block as leader (CONSENSUS.md 4.10.3: better the same at all
    nodes of a chain); with `verifiers = "assigned"` (the same at
    every node of a chain) f + 1 of them check each transaction's signature for all (CONSENSUS.md 4.9). `index` is the
    node's number, as in its name. `joins = true`: genesis does not name its key, because it joined, or got this key,
    later; until the chain's list has the key the node only follows (CONSENSUS.md 8). A key to come is in `<key>.next`.
    """

    chain: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    index: Annotated[int, msgspec.Meta(ge=0, le=99)]
    key: Path
    data: Path
    joins: bool = False
    batch_ms: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    timeout_ms: Annotated[int, msgspec.Meta(ge=100, le=600_000)] = 4_000
    transactions_max: Annotated[int, msgspec.Meta(ge=1, le=5000)] = 500
    verifiers: Literal["all", "assigned"] = "all"
    retention: Literal["archive", "normal", "light"] = "archive"
    "archive: every block; normal: the last `retain_blocks`; light: what a restart needs."
    retain_blocks: Annotated[int, msgspec.Meta(ge=1, le=10**9)] = 100_000
    snapshot_blocks: Annotated[int, msgspec.Meta(ge=2, le=10**6)] = 1_024
    "A multiple of this height leaves a snapshot; the same in all validators of a chain."


class TlsSection(Section, frozen=True, kw_only=True):
    """`[tls]`: the CA both ends trust, this node's certificate (CN = its name, as area1-node0) and its key."""

    ca: Path
    cert: Path
    key: Path


class ListenSection(Section, frozen=True, kw_only=True):
    """`[listen]`: where peers and followers connect. Port 0 lets the system choose (tests)."""

    host: str
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)]


class PeerSection(Section, frozen=True, kw_only=True):
    """`[[peers]]`: another validator of the same chain."""

    index: Annotated[int, msgspec.Meta(ge=0, le=99)]
    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]


class EndpointSection(Section, frozen=True, kw_only=True):
    """`[[main]]`, `[[areas]]`: a validator of another chain, to follow it or to submit to it."""

    chain: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    index: Annotated[int, msgspec.Meta(ge=0, le=99)]
    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]


class MqttSection(Section, frozen=True, kw_only=True):
    """`[mqtt]`: a broker. Without `ca` the connection is plain, which only a loopback address may be."""

    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise FieldProblem("cert" if self.key is None else "key", "cert and key belong together")
        if self.ca is None and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise FieldProblem("host", "a broker on another machine needs `ca` (TLS)")


class LogSection(Section, frozen=True, kw_only=True):
    """`[log]`: how much is written."""

    level: Literal["debug", "info", "warning", "error"] = "info"


T = TypeVar("T", bound=msgspec.Struct)


def load(path: Path | str, kind: type[T]) -> T:
    """Read the TOML file `path` into the Struct `kind`; ConfigError when it cannot be used."""
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration: {error.strerror}") from None
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: {len(raw)} bytes; a configuration has at most {MAX_CONFIG_BYTES}")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}:{raw[: error.start].count(10) + 1}: not UTF-8 text") from None
    return parse(text, kind, path)


def parse(text: str, kind: type[T], path: Path) -> T:
    """As `load`, from text; `path` names the file in errors and its folder resolves relative paths."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _TOML_LINE.search(str(error))
        line = int(found[1]) if found and found[1] else text.count("\n") + 1
        raise ConfigError(f"{path}:{line}: not TOML: {error}") from None
    reader = _Reader(path, _line_index(text))
    result: T = reader.read_struct(data, inspect.type_info(kind), ())
    return result


class _Reader:
    """Walks the data and the types together; every refusal knows where it is."""

    def __init__(self, path: Path, lines: Line) -> None:
        self._path = path
        self._lines = lines

    def _fail(self, where: tuple[str | int, ...], problem: str) -> ConfigError:
        line = 1
        for length in range(len(where), 0, -1):
            if where[:length] in self._lines:
                line = self._lines[where[:length]]
                break
        return ConfigError(f"{self._path}:{line}: {problem}")

    def _wrong(self, where: tuple[str | int, ...], value: Any, allowed: str) -> ConfigError:
        return self._fail(where, f"{_dotted(where)} = {_shown(value)}: allowed is {allowed}")

    def read_struct(self, data: Any, info: inspect.Type, where: tuple[str | int, ...]) -> Any:
        assert isinstance(info, inspect.StructType)
        if not isinstance(data, dict):
            raise self._wrong(where, data, "a table")
        fields = {field.encode_name: field for field in info.fields}
        for key in data:
            if key not in fields:
                near = difflib.get_close_matches(key, list(fields), n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise self._fail(
                    (*where, key),
                    f"unknown key {_dotted((*where, key))}{hint} (allowed: {', '.join(sorted(fields))})",
                )
        values: dict[str, Any] = {}
        for key, field in fields.items():
            if key in data:
                values[field.name] = self.read(data[key], field.type, (*where, key))
            elif field.required:
                raise self._fail(where, f"missing key {_dotted((*where, key))}: needs {_allowed(field.type)}")
        try:
            return info.cls(**values)
        except FieldProblem as problem:
            at = (*where, problem.key)
            shown = f" = {_shown(data[problem.key])}" if problem.key in data else ""
            raise self._fail(at, f"{_dotted(at)}{shown}: {problem.text}") from None

    def read(self, value: Any, info: inspect.Type, where: tuple[str | int, ...]) -> Any:
        if isinstance(info, inspect.StructType):
            return self.read_struct(value, info, where)
        if isinstance(info, inspect.UnionType):
            # TOML has no null: a union is `X | None`, and what stands in the file is the X.
            choices = [choice for choice in info.types if not isinstance(choice, inspect.NoneType)]
            return self.read(value, choices[0], where)
        if isinstance(info, inspect.ListType | inspect.VarTupleType):
            if not isinstance(value, list):
                raise self._wrong(where, value, _allowed(info))
            items = [self.read(item, info.item_type, (*where, at)) for at, item in enumerate(value)]
            if not _length_fits(len(items), info.min_length, info.max_length):
                raise self._wrong(where, value, _allowed(info))
            return tuple(items) if isinstance(info, inspect.VarTupleType) else items
        if isinstance(info, inspect.DictType):
            if not isinstance(value, dict):
                raise self._wrong(where, value, _allowed(info))
            return {key: self.read(item, info.value_type, (*where, key)) for key, item in value.items()}
        return self._read_scalar(value, info, where)

    def _read_scalar(self, value: Any, info: inspect.Type, where: tuple[str | int, ...]) -> Any:
        fits = False
        if isinstance(info, inspect.BoolType):
            fits = isinstance(value, bool)
        elif isinstance(info, inspect.IntType):
            fits = isinstance(value, int) and not isinstance(value, bool) and _int_fits(value, info)
        elif isinstance(info, inspect.StrType):
            fits = isinstance(value, str) and _str_fits(value, info)
        elif isinstance(info, inspect.LiteralType):
            fits = any(value == choice and type(value) is type(choice) for choice in info.values)
        elif isinstance(info, inspect.CustomType) and info.cls is Path:
            if isinstance(value, str) and value and "\x00" not in value:
                return self._path.parent / Path(value).expanduser()
        elif isinstance(info, inspect.AnyType):
            fits = True
        if not fits:
            raise self._wrong(where, value, _allowed(info))
        return value


def _int_fits(value: int, info: inspect.IntType) -> bool:
    return not (
        (info.ge is not None and value < info.ge)
        or (info.le is not None and value > info.le)
        or (info.gt is not None and value <= info.gt)
        or (info.lt is not None and value >= info.lt)
    )


def _str_fits(value: str, info: inspect.StrType) -> bool:
    # A pattern's `$` also matches before a final newline, which no value here may have.
    if info.pattern is not None and (re.search(info.pattern, value) is None or "\n" in value):
        return False
    return _length_fits(len(value), info.min_length, info.max_length)


def _length_fits(length: int, least: int | None, most: int | None) -> bool:
    return (least is None or length >= least) and (most is None or length <= most)


def _allowed(info: inspect.Type) -> str:
    """What a type takes, in words."""
    if isinstance(info, inspect.BoolType):
        return "true or false"
    if isinstance(info, inspect.IntType):
        low = info.ge if info.ge is not None else None if info.gt is None else info.gt + 1
        high = info.le if info.le is not None else None if info.lt is None else info.lt - 1
        if low is not None and high is not None:
            return f"an integer {low}..{high}"
        if low is not None:
            return f"an integer >= {low}"
        return "an integer" if high is None else f"an integer <= {high}"
    if isinstance(info, inspect.StrType):
        if info.pattern is not None:
            return f"text of the form {info.pattern}"
        bounds = "" if info.max_length is None else f" of at most {info.max_length} characters"
        return f"text{bounds}"
    if isinstance(info, inspect.LiteralType):
        return "one of " + ", ".join(str(choice) for choice in sorted(info.values, key=str))
    if isinstance(info, inspect.UnionType):
        return " or ".join(_allowed(choice) for choice in info.types if not isinstance(choice, inspect.NoneType))
    if isinstance(info, inspect.ListType | inspect.VarTupleType):
        least, most = info.min_length, info.max_length
        bounds = "" if not least and most is None else f" ({least or 0} to {'any number' if most is None else most})"
        return f"a list, each {_allowed(info.item_type)}{bounds}"
    if isinstance(info, inspect.StructType):
        return f"a table with {', '.join(field.encode_name for field in info.fields)}"
    if isinstance(info, inspect.DictType):
        return f"a table, each value {_allowed(info.value_type)}"
    return "a path" if isinstance(info, inspect.CustomType) and info.cls is Path else "a value"


def _dotted(where: tuple[str | int, ...]) -> str:
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "the file"


def _shown(value: Any) -> str:
    text = repr(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def _line_index(text: str) -> Line:
    """The line of every key and table header; keys inside inline tables stay with their outer key."""
    index: Line = {}
    counts: dict[tuple[str | int, ...], int] = {}
    table: tuple[str | int, ...] = ()
    for number, line in _outside_values(text):
        header = _TABLE.match(line)
        if header:
            table = ()
            names = _names(header[2])
            for depth, name in enumerate(names):
                table = (*table, name)
                last = depth == len(names) - 1
                if last and header[1] == "[[":
                    counts[table] = counts.get(table, -1) + 1
                    index.setdefault(table, number)
                if table in counts:
                    table = (*table, counts[table])
            index.setdefault(table, number)
            continue
        key = _KEY.match(line)
        if key:
            where = table
            for name in _names(key[1]):
                where = (*where, name)
                index.setdefault(where, number)
    return index


def _outside_values(text: str) -> Iterator[tuple[int, str]]:
    """The lines on which a key or a header may begin: not those inside a multi-line string or array."""
    quote = ""
    depth = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if not quote and depth == 0:
            yield number, line
            header = _TABLE.match(line)
            if header:
                continue
        at = 0
        while at < len(line):
            if quote:
                if line.startswith(quote, at):
                    at += len(quote)
                    quote = ""
                    continue
                at += 2 if quote[0] == '"' and line[at] == "\\" else 1
                continue
            mark = line[at]
            if mark == "#":
                break
            if mark in "\"'":
                quote = mark * 3 if line.startswith(mark * 3, at) else mark
                at += len(quote)
                continue
            depth += (mark in "[{") - (mark in "]}")
            at += 1
        if len(quote) == 1:
            quote = ""


def _names(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in re.findall(r"\"[^\"]*\"|'[^']*'|[^.\s][^.]*", dotted)]
