"""Byzantine agreement on the blocks of one chain: PBFT as a machine without clock, socket or disk."""

from watt_chain.pbft.config import ReplicaConfig
from watt_chain.pbft.desk import Application
from watt_chain.pbft.outputs import Evidence, Output, Record, Rejected, record_height
from watt_chain.pbft.replica import Replica

__all__ = [
    "Application",
    "Evidence",
    "Output",
    "Record",
    "Rejected",
    "Replica",
    "ReplicaConfig",
    "record_height",
]
