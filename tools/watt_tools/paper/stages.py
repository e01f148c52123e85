"""Names of the stages of a run, in their order; apart from `plan`, so that the command line loads nothing else."""

from __future__ import annotations

from typing import Final

STAGES: Final = {
    "sweep": "every s and n of the paper at every delay, bursts of 20 trades",
    "single": "the paper's eight cells and Figure 9, one trade at a time",
    "beyond": "n = 7 and 10, variants, a crashed and a lying cross-node, batching",
    "charge": "a sample with every signature check done",
    "storage": "bytes of the nodes' stores, growth per day",
    "processes": "the paper's cells as real processes",
}
