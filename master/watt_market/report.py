"""Eq. (1) as it can be reported: users' income of a matching before delivery, and the literal figure after it.

Before: with the declared labels (a buyer, b seller) Eq. (1) is social welfare, and equals the value of (P-U) when no
default risk is priced. After: with the labels as used (a contracted, b actual) it is an accounting identity, -C under
full performance (model 1.6). Both are indicators; only the first was optimised.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from watt_chain.contract.market import Book, Slice


@dataclass(frozen=True, slots=True)
class UsersIncome:
    """I_users and its terms, u."""

    contract_u: int
    "I1 = sum p_tia W_tia."
    response_u: int
    "sum p_tjb W_tjb."
    comfort_u: int
    charge_u: int

    @property
    def cost_u(self) -> int:
        """C, Eq. (2)."""
        return self.comfort_u + self.charge_u

    @property
    def income_u(self) -> int:
        """I_users, Eq. (1)."""
        return self.contract_u - self.response_u - self.cost_u


def matched_income(book: Book, part: Slice) -> UsersIncome:
    """Eq. (1) of one area's matching: limit prices of the buyers against asks of the sellers."""
    bought = sold = 0
    for assignment in part.assignments:
        energy = sum(assignment.slot_wh)
        bought += book.bids[assignment.bid].price_u_per_wh * energy
        sold += book.offers[assignment.offer].price_u_per_wh * energy
    return UsersIncome(bought, sold, part.comfort_u, part.charge_u)


@dataclass(frozen=True, slots=True)
class Contract:
    """One pair in one slot after the event."""

    price_u_per_wh: int
    contracted_wh: int
    delivered_wh: int


def delivered_income(contracts: Sequence[Contract], comfort_u: int, charge_u: int) -> UsersIncome:
    """Eq. (1) after delivery: contracted amount less amount of what was delivered, less C."""
    contract_u = sum(c.price_u_per_wh * c.contracted_wh for c in contracts)
    response_u = sum(c.price_u_per_wh * c.delivered_wh for c in contracts)
    return UsersIncome(contract_u, response_u, comfort_u, charge_u)


def sum_income(parts: Sequence[UsersIncome]) -> UsersIncome:
    """Eq. (1) over all areas."""
    return UsersIncome(
        sum(p.contract_u for p in parts),
        sum(p.response_u for p in parts),
        sum(p.comfort_u for p in parts),
        sum(p.charge_u for p in parts),
    )
