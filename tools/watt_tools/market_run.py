"""Where the areas of a clearing are searched: in this process, in local processes, or on a Dask cluster.

Each area is one pure task on integers, so the answer does not depend on where, in which order or how often it ran; only
the order in which answers are handed back is fixed: that of the areas.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final

from watt_market.engine import Run, run_here

if TYPE_CHECKING:
    from watt_market.engine import Task
    from watt_market.greedy import Answer

AHEAD: Final = 64
"Tasks in flight; each carries an area's arrays, so this bounds the memory of a large clearing."


def chosen(scheduler: str | None, jobs: int) -> AbstractContextManager[Run]:
    """Where to run: local processes, or a Dask cluster ("local" starts one here)."""
    if scheduler:
        return cluster(None if scheduler == "local" else scheduler, jobs)
    return processes(jobs)


@contextmanager
def processes(jobs: int) -> Iterator[Run]:
    """Run tasks in `jobs` local processes; 1 stays in this one."""
    if jobs <= 1:
        yield run_here
        return
    with ProcessPoolExecutor(jobs) as pool:

        def run(task: Task, arguments: Sequence[tuple[Any, ...]]) -> Iterator[Answer]:
            waiting = deque(pool.submit(task, *one) for one in arguments[:AHEAD])
            for number in range(len(arguments)):
                yield waiting.popleft().result()
                if number + AHEAD < len(arguments):
                    waiting.append(pool.submit(task, *arguments[number + AHEAD]))

        yield run


@contextmanager
def cluster(address: str | None, jobs: int = 2) -> Iterator[Run]:
    """Run tasks on the Dask scheduler at `address` (tcp://host:port); None starts one here with `jobs` workers.

    Workers need this distribution installed in the same version. A worker that dies loses its tasks to another one.
    Raises OSError when no scheduler answers.
    """
    import distributed

    dask: Any = distributed  # it is annotated in part
    local = None
    if address is None:
        local = dask.LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None, silence_logs=50)
    client = dask.Client(address if local is None else local)

    def run(task: Task, arguments: Sequence[tuple[Any, ...]]) -> Iterator[Answer]:
        waiting = deque(client.submit(task, *one, pure=False) for one in arguments[:AHEAD])
        for number in range(len(arguments)):
            yield waiting.popleft().result()
            if number + AHEAD < len(arguments):
                waiting.append(client.submit(task, *arguments[number + AHEAD], pure=False))

    try:
        yield run
    finally:
        client.close()
        if local is not None:
            local.close()
