"""The commands that a person runs on a node's folder: export, import, accept-disk; the same for stations and masters.

Progress goes to standard error on a terminal, the result to standard output; exit code 1 comes with one line.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from watt_chain.block import decode_certified
from watt_chain.codec import DecodeError

from watt_node.blocklog import read_blocks
from watt_node.config import ConfigError
from watt_node.disk import StoreError
from watt_node.offline import ChainFileError, StoppedNode, Taker, put_in, write_chain

SHOWN_S = 0.5
"""Between two updates of the living line."""
ACCEPT_DISK = """\
This node does not sign, because it may have forgotten what it signed: {doubt}.
It would find out by itself once the other validators go on (CONSENSUS.md 4.7.6). Only when they cannot, because all
machines were moved or restored at once, and only when this disk is the newest that exists of this node, say --yes.
A node that accepts an older disk can sign against itself and will be convicted of it."""


def by_hand(name: str, work: Callable[[], str], errors: tuple[type[Exception], ...] = ()) -> int:
    """Run `work` and print its result; 0, or 1 with one line on standard error. `errors`: further ones to expect."""
    expected: tuple[type[Exception], ...] = (ConfigError, StoreError, ChainFileError, DecodeError, *errors)
    try:
        print(work())
    except expected as error:
        print(f"wattpact {name}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"wattpact {name}: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def show(what: str, numbers: Iterator[int]) -> int:
    """Go through `numbers`, showing the last one now and then; the last."""
    shown_s, number = 0.0, 0
    for number in numbers:
        if sys.stderr.isatty() and time.monotonic() - shown_s > SHOWN_S:
            shown_s = time.monotonic()
            print(f"\r{what} {number}", end="", file=sys.stderr, flush=True)
    if shown_s:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return number


def take_out(blocks: Iterator[bytes], out: Path, first: int, last: int | None = None) -> str:
    """Write a chain's blocks from height `first` on, or to `last`, to a file; a sentence. ChainFileError, OSError."""
    seen: list[int] = []

    def chosen() -> Iterator[bytes]:
        for certified in blocks:
            height = decode_certified(certified)[2].height
            if height < first:
                continue
            if last is not None and height > last:
                return
            if seen and height != seen[-1] + 1:
                raise ChainFileError(f"height {height} came after {seen[-1]}: the node closed a file meanwhile; again")
            seen[:] = [seen[0] if seen else height, height]
            yield certified

    count = show("blocks:", write_chain(out, chosen()))
    if not count:
        out.unlink()
        raise ChainFileError(f"no block from height {first} on is kept here")
    begins = "" if seen[0] == first else f"; those before height {seen[0]} are not kept here"
    return f"{out}: {count} blocks, heights {seen[0]} to {seen[-1]}{begins}"


def log_of(data: Path) -> Iterator[bytes]:
    """The blocks of a node's folder."""
    return read_blocks(data / "blocks.log")


def take_in(path: Path, taker: Taker, network: bytes) -> str:
    """Put a file's blocks in; a sentence about it. ChainFileError, StoreError, OSError."""
    before = taker.height
    show("height", put_in(path, taker, network))
    if taker.height == before:
        return f"{path}: nothing new; height {before}"
    return f"{path}: {taker.height - before} blocks; height {taker.height}"


def accept_disk(node: StoppedNode, yes: bool) -> str:
    """End a doubt; a sentence about it. StoreError without `yes`."""
    doubt = node.vault.doubt
    if not doubt:
        return "this node is in no doubt about what it signed; nothing to do"
    if not yes:
        raise StoreError(ACCEPT_DISK.format(doubt=doubt))
    node.vault.accept_disk()
    return f"accepted at height {node.height}: the node signs again for the heights after it (it had doubted: {doubt})"
