"""The loop feeds the watchdog only while it is healthy (V2.7), and confirms a bundle after a minute (V2.6)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from watt_plug.app import Plug
from watt_plug.clock import Clock
from watt_plug.config import Config
from watt_plug.shell import HEALTHY_S, STALL_S, Board, Shell
from watt_plug.signer import SoftwareSigner
from watt_plug.storage import MemoryStorage


class SlowBoard(Board):
    """A board on which the `slow`th look at the chip takes `stall_ms`; each other round takes 100 ms."""

    def __init__(self, slow: int, stall_ms: int) -> None:
        self.now_ms = 0
        self.rounds = 0
        self.slow, self.stall_ms = slow, stall_ms
        self.fed: list[int] = []
        self.confirmed: list[int] = []
        self.codes: set[int] = set()

    def timer_ms(self) -> int:
        return self.now_ms

    def measure(self, plug: object, timer_ms: int) -> None:
        self.rounds += 1
        self.now_ms += self.stall_ms if self.rounds == self.slow else 100

    def feed(self) -> None:
        self.fed.append(self.rounds)

    def lamp(self, code: int, timer_ms: int) -> None:
        self.codes.add(code)

    def healthy(self) -> None:
        self.confirmed.append(self.now_ms)


async def nowhere() -> Any:
    raise OSError("no network")


def lived(board: SlowBoard, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plug = Plug(Config("home-1", 3680, bytes(32)), SoftwareSigner(b"\x11" * 32), MemoryStorage())
    plug.start(0, quality="U")
    clock = Clock(plug.plug_id, bytes(64), lambda n: bytes(n))
    shell = Shell(plug, clock, board, nowhere, lambda n: 0, None, {"ask": "a", "status": "s"})
    real = asyncio.sleep

    async def quick(seconds: float) -> None:
        shell.stopped = shell.stopped or board.rounds >= rounds
        await real(0)

    monkeypatch.setattr("watt_plug.shell.asyncio.sleep", quick)
    asyncio.run(shell.run())


@pytest.mark.parametrize(("stall_ms", "fed"), [(STALL_S * 1000 - 1, True), (STALL_S * 1000, False)])
def test_a_round_that_hangs_does_not_feed_the_watchdog(
    monkeypatch: pytest.MonkeyPatch, stall_ms: int, fed: bool
) -> None:
    board = SlowBoard(5, stall_ms)
    lived(board, 20, monkeypatch)
    assert (5 in board.fed) is fed
    assert {4, 6, 7}.issubset(board.fed), "the rounds before and after it do"


def test_a_bundle_is_confirmed_once_after_a_minute_of_the_loop_whether_there_is_a_network_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    board = SlowBoard(0, 0)
    lived(board, HEALTHY_S * 10 + 50, monkeypatch)
    assert len(board.confirmed) == 1 and HEALTHY_S * 1000 <= board.confirmed[0] <= HEALTHY_S * 1000 + 200
    assert board.codes == {1}, "alone: one blink"
