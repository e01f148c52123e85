"""Makes the helpers of this folder, and the benches of the node's and the gateway's tests, importable."""

import sys
from pathlib import Path

for folder in ("e2e", "node", "gateway"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
