"""The market's contract: deterministic, integer-exact, the same on every node (normative text: station/CONTRACT.md).

`AreaContract` runs on the chain of an area, `MainContract` on the main chain; both satisfy watt_chain.ledger.Contract
and take the arithmetic of the market (contract.market.Market) from the layer above.
"""

from watt_chain.contract.area import AreaContract
from watt_chain.contract.main import MainContract

__all__ = ["AreaContract", "MainContract"]
