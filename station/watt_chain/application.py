"""What a ledger asks of the application of its chain: the contract, and all that it may know besides the state."""

from dataclasses import dataclass
from typing import Protocol

from watt_chain.genesis import Genesis, Seat, Validator
from watt_chain.state import State, StateReader
from watt_chain.transaction import DecodedTransaction


@dataclass(frozen=True, slots=True)
class BlockContext:
    """What a contract may know besides the state: no clock, no randomness, only the block it runs in."""

    network: bytes
    chain: int
    height: int
    time_s: int
    proposer: int
    validators: tuple[Validator, ...]
    view: int = 0
    "In which the block was first proposed: above 0, the leaders of the views below were skipped."


class Contract(Protocol):
    """The application of a chain. Deterministic: the same state and input give the same state everywhere."""

    def genesis(self, state: State, genesis: Genesis, chain: int) -> None:
        """Write the first state."""

    def begin(self, state: State, context: BlockContext) -> None:
        """Time-driven transitions, before the first transaction of a block."""

    def execute(self, state: State, context: BlockContext, tx: DecodedTransaction) -> str:
        """Run a transaction; "" or the reason it is refused. A refusal is rolled back by the ledger."""

    def next_nonce(self, state: StateReader, signer: bytes) -> int:
        """The nonce the 64-byte key `signer` must use next; negative when nobody knows the key."""

    def consume_nonce(self, state: State, signer: bytes, nonce: int) -> bool:
        """Count one transaction of `signer`: once per transaction in a block, refused or not, before `execute`.

        False, and nothing is counted, when `nonce` is not what `next_nonce` says.
        """

    def seats(self, state: StateReader) -> tuple[Seat, ...] | None:
        """Who certifies the block after this state, by index; None: those of genesis, for ever."""

    def resume(self, state: State, context: BlockContext, previous: bytes, tx: DecodedTransaction) -> str:
        """Before anything else of the block after `previous`: put the list in force that a Resume names.

        "" or the reason it is refused; nothing is written then.
        """

    def rules_version(self, state: StateReader) -> int:
        """Version of the rule set in force after the block."""

    def inbox_cursor(self, state: StateReader) -> int:
        """Sequence number of the last message consumed from the other side."""

    def order(self, state: StateReader, context: BlockContext) -> tuple[int, ...]:
        """Indexes of the validators in the order in which they lead the views of the height after the final `state`.

        Of `context` only network, chain, height and validators are set; the order must follow from them and the state.
        """
