"""The clearing off the loop: one at a time, told about, given up in time."""

from concurrent.futures import Executor, Future
from typing import Any

from watt_chain.contract.market import Solution
from watt_master.clearing import FAILED_AGAIN_MS, FAILURES_MAX, PROGRESS_MS, Clearing

FOUND = Solution(1, 0, [], 5, 6)


class HeldExecutor(Executor):
    """Stands in for the worker thread: the test decides when a job is done."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
        self.futures.append(Future())
        return self.futures[-1]


def ask(clearing: Clearing, world: Any, now_ms: int, root: bytes = b"r") -> Solution | None:
    return clearing.solution(world.event.spec(), [root], [], None, now_ms)  # type: ignore[arg-type]


def test_given_a_long_clearing_when_asked_repeatedly_then_it_runs_once_and_its_progress_is_told(world: Any) -> None:
    threads = HeldExecutor()
    clearing = Clearing(lambda *_: FOUND, threads)
    assert ask(clearing, world, 0) is None
    assert ask(clearing, world, PROGRESS_MS) is None
    assert len(threads.futures) == 1 and clearing.running() == 1
    assert [note.what for note in clearing.take_progress()] == ["started", "running"]
    threads.futures[0].set_result(FOUND)
    assert ask(clearing, world, PROGRESS_MS + 1) == FOUND
    assert ask(clearing, world, PROGRESS_MS + 2) == FOUND
    assert len(threads.futures) == 1 and [note.what for note in clearing.take_progress()] == ["done"]


def test_given_other_books_when_asked_then_an_earlier_answer_is_not_given_for_them(world: Any) -> None:
    threads = HeldExecutor()
    clearing = Clearing(lambda *_: FOUND, threads)
    ask(clearing, world, 0)
    threads.futures[0].set_result(FOUND)
    assert ask(clearing, world, 1) == FOUND
    assert ask(clearing, world, 2, b"other") is None
    assert len(threads.futures) == 2


def test_given_a_clearing_that_fails_when_asked_again_then_it_is_tried_a_few_times_and_told(world: Any) -> None:
    threads = HeldExecutor()
    clearing = Clearing(lambda *_: FOUND, threads)
    now = 0
    for _ in range(FAILURES_MAX + 2):
        ask(clearing, world, now)
        if not threads.futures[-1].done():
            threads.futures[-1].set_exception(MemoryError("none left"))
        ask(clearing, world, now + 1)
        now += FAILED_AGAIN_MS + 1
    assert len(threads.futures) == FAILURES_MAX
    assert next(note.detail for note in clearing.take_progress() if note.what == "failed") == "MemoryError: none left"
