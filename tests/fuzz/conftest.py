"""Makes the fuzz targets and the network they stand on importable under pytest's importlib mode."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "chain")]
