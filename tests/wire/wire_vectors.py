"""Reads tests/vectors on both Pythons (portable subset): blocks of `name = value` lines, one block at a time."""

from watt_wire.checkpoint import Checkpoint
from watt_wire.command import Command
from watt_wire.record import Record

FOLDER = __file__.replace("\\", "/").rsplit("/", 1)[0] + "/../vectors/"


class Block:
    """One block; a name may occur more than once (`every`)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def every(self, name: str) -> list[str]:
        return [value for key, value in self.lines if key == name]

    def text(self, name: str) -> str:
        found = self.every(name)
        assert len(found) == 1, name
        return found[0]

    def number(self, name: str) -> int:
        return int(self.text(name))

    def data(self, name: str) -> bytes:
        return bytes.fromhex(self.text(name))


def blocks(name: str) -> list[Block]:
    """Return the blocks of one file; there is at least one."""
    result = [Block()]
    with open(FOLDER + name) as file:
        for line in file:
            line = line.strip()
            if not line:
                result.append(Block())
            elif not line.startswith("#"):
                key, value = line.split("=", 1)
                result[-1].lines.append((key.strip(), value.strip()))
    result = [block for block in result if block.lines]
    assert result, name
    return result


def values(block: Block, fields: tuple[str, ...], byte_fields: tuple[str, ...]) -> list[object]:
    """Return the fields of a block in order, those named in byte_fields as bytes and the others as integers."""
    return [block.data(name) if name in byte_fields else block.number(name) for name in fields]


def record_of(block: Block) -> Record:
    return Record(*values(block, Record.FIELDS, ("plug_id",)))  # type: ignore[arg-type]


def checkpoint_of(block: Block) -> Checkpoint:
    names = ("plug_id", "previous", "merkle_root", "firmware_hash", "calibration_hash")
    return Checkpoint(*values(block, Checkpoint.FIELDS, names))  # type: ignore[arg-type]


def command_of(block: Block) -> Command:
    names = ("network", "plug_id", "reference", "signer_a", "signer_b")
    return Command(*values(block, Command.FIELDS, names))  # type: ignore[arg-type]


def flipped(frame: bytes, position: int, xor: int) -> bytes:
    """Return frame with one byte changed."""
    changed = bytearray(frame)
    changed[position] ^= xor
    return bytes(changed)


def raises(kind: type, call: object, *arguments: object) -> str:
    """Return the message of the exception of that kind that call(*arguments) raises; AssertionError when none."""
    try:
        call(*arguments)  # type: ignore[operator]
    except kind as error:
        return str(error)
    raise AssertionError("nothing was raised")
