"""Names of the stages of a run, in their order; apart from `plan`, so that the command line loads nothing else."""

from __future__ import annotations

from typing import Final

STAGES: Final = ("sweep", "single", "beyond", "charge", "storage", "processes")
