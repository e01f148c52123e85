"""I4 and I6 in an area: a second ledger of its money and of its readings, kept from the final blocks."""

from msgspec import msgpack
from watt_chain import codec
from watt_chain.contract.objects import SUPPLY_KEY, Account, Supply
from watt_chain.crypto import id8
from watt_chain.ledger import AppliedBlock, Ledger
from watt_wire import checkpoint

from watt_sim.violation import Violation


class Books:
    """What households have, and which checkpoints were used."""

    def __init__(self) -> None:
        self._money_u: dict[bytes, int] = {}
        self._counters: dict[bytes, int] = {}
        "Plug -> counter of the last checkpoint that was taken."
        self.height = 0
        self.spent_twice = 0
        "Calls that would have spent money or a reading again, and were refused."

    def take(self, applied: AppliedBlock) -> None:
        """Follow one final block. Raises Violation."""
        for tx, receipt in zip(applied.transactions, applied.receipts, strict=True):
            fields = msgpack.decode(tx.fields_raw)
            taken = receipt.code == ""
            if tx.kind == "Deposit" and taken:
                self._money_u[fields[0]] = self._money_u.get(fields[0], 0) + fields[1]
            elif tx.kind == "Withdraw":
                self._spend(id8(tx.signer), fields[0], taken)
            elif tx.kind == "Checkpoint":
                self._read(checkpoint.decode(fields[0]), taken)
        self.height = applied.header.height

    def _spend(self, account: bytes, amount_u: int, taken: bool) -> None:
        left_u = self._money_u.get(account, 0) - amount_u
        if left_u < 0 and taken:
            raise Violation("I4", f"{account.hex()} spends {amount_u}, of which it lacks {-left_u}")
        if taken:
            self._money_u[account] = left_u
        else:
            self.spent_twice += 1

    def _read(self, frame: checkpoint.Checkpoint, taken: bool) -> None:
        before = self._counters.get(frame.plug_id, 0)
        if frame.counter <= before and taken:
            raise Violation("I4", f"checkpoint {frame.counter} of plug {frame.plug_id.hex()} is used again")
        if taken:
            self._counters[frame.plug_id] = frame.counter
        elif frame.counter <= before:
            self.spent_twice += 1

    def compare(self, ledger: Ledger) -> None:
        """The state of a ledger that stands right after the last block taken. Raises Violation."""
        state = ledger.state
        accounts = [codec.decode(state.get(key) or b"", Account) for key in state.keys(b"account/")]
        for account in accounts:
            if min(account.free_u, account.escrow_u, account.bond_u) < 0:
                raise Violation("I4", f"account {account.id.hex()} is below zero")
            if account.free_u != self._money_u.get(account.id, 0):
                raise Violation("I4", f"account {account.id.hex()} holds {account.free_u}")
        supply = codec.decode(state.get(SUPPLY_KEY) or b"", Supply)
        total = sum(account.free_u + account.escrow_u + account.bond_u for account in accounts)
        if total != supply.deposited_u - supply.withdrawn_u or total != sum(self._money_u.values()):
            raise Violation("I6", f"accounts hold {total}, {supply} came in and went out")
