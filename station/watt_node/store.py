"""The stores of a node, by the names other packages use; the parts are in the modules named here.

`disk` what a store may do to a folder; `records` the format of every file; `votelog`, `blocklog`, `blockindex`,
`snapshots` the files; `vault` all of them together, and the order in which they are written.
"""

from watt_node.blocklog import BlockLog, StoredBlock, read_blocks, read_stored
from watt_node.disk import StoreError
from watt_node.votelog import VoteLog

__all__ = ["BlockLog", "StoreError", "StoredBlock", "VoteLog", "read_blocks", "read_stored"]
