"""Lets the tests of this folder import their helper, and the network in memory of the contract's tests."""

import sys
from pathlib import Path

for folder in (Path(__file__).parent, Path(__file__).parents[1] / "contract"):
    sys.path.insert(0, str(folder))
