"""The contract of an area chain: one function per row of the table of kinds, and the deadlines.

`execute` and `begin` are the only entry points.  A call is tested in this order: signer known, key valid, kind known,
role, fields; then its function runs.  Whatever a function has written when it refuses is rolled back.
"""

from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from watt_chain import codec
from watt_chain.contract import (
    bidding,
    credit,
    cross_area,
    cross_seats,
    evidence,
    inbox,
    incentive,
    matching,
    metering,
    points,
    registration,
    rematch,
    settlement,
    standing,
    tickets,
    validators,
)
from watt_chain.contract.access import Refused, Session, read, refuse, refuse_if, signer_of
from watt_chain.contract.event import State, Trigger
from watt_chain.contract.kinds import TABLE, Batch, Place
from watt_chain.contract.market import Market
from watt_chain.contract.objects import (
    FOREVER,
    INBOX_KEY,
    MAIN_CHAIN,
    POOL_KEY,
    RULES_KEY,
    SUPPLY_KEY,
    Account,
    AreaEvent,
    InboxCursor,
    Pool,
    RulesIndex,
    Supply,
    account_key,
)
from watt_chain.genesis import Genesis, Seat, network_of
from watt_chain.ledger import BlockContext
from watt_chain.resume import RESUME
from watt_chain.state import State as ChainState
from watt_chain.state import StateReader
from watt_chain.transaction import DecodedTransaction

UNKNOWN_NONCE: Final = -1
"What next_nonce answers for a key that may not sign."

BATCH: Final = "Batch"

Function = Callable[[Session, Account, Any], None]
"Fields are of the type that TABLE names for the kind; `dispatch` decodes them before the call."


ELECTION: Final[dict[str, Function]] = {
    "Ticket": tickets.take_ticket,
    "SeedCommit": tickets.commit,
    "SeedReveal": tickets.reveal,
    "Evidence": evidence.convict,
}
"The same on every chain."

FUNCTIONS: Final[dict[str, Function]] = {
    "Enrol": registration.enrol,
    "Rotate": registration.rotate,
    "Revoke": registration.revoke,
    "Rehabilitate": standing.rehabilitate,
    "Deposit": registration.deposit,
    "Withdraw": registration.withdraw,
    "Inbox": inbox.take_messages,
    "Commit": bidding.commit,
    "Reveal": bidding.reveal,
    "Qualify": bidding.qualify,
    "Confirmtransaction": matching.choose,
    "Confirm": matching.confirm,
    "Reopen": rematch.reopen,
    "Rematch": rematch.rematch,
    "Checkpoint": metering.take_checkpoint,
    "SettlementCredit": credit.settle_credit,
    "SettlementAmount": settlement.settle_amount,
    "PriceIncentives": incentive.price_incentives,
    "Punish": incentive.punish,
    "Points": points.issue_points,
    BATCH: lambda session, signer, fields: run_batch(session, signer, fields),
    **ELECTION,
    "Validators": validators.change,
    RESUME: validators.not_first,
    "CrossOp": cross_area.cross_op,
    "CrossReady": cross_seats.ready,
}


def dispatch(session: Session, place: Place, functions: dict[str, Function], tx: DecodedTransaction) -> None:
    """Test signer, kind, role and fields of a call, then run it. Raises Refused."""
    key = signer_of(session.state, tx.signer)
    if key is None:
        refuse("unknown-signer")
    refuse_if(key.to_height != FOREVER, "revoked")
    _call(session, place, functions, session.account(key.account), tx.kind, tx.fields_raw)


def _call(
    session: Session, place: Place, functions: dict[str, Function], signer: Account, name: str, fields_raw: bytes
) -> None:
    """Test kind, role and fields of one call, then run it. Raises Refused."""
    kind = TABLE.get((place, name))
    if kind is None:
        refuse("unknown-kind")
    refuse_if(signer.role not in kind.roles, "role")
    try:
        fields = codec.decode(fields_raw, kind.fields)
    except codec.DecodeError:
        refuse("malformed")
    functions[name](session, signer, fields)


def run_batch(session: Session, signer: Account, fields: Batch) -> None:
    """All calls in order, each as if it came alone; the first that is refused refuses them all."""
    for call in fields.calls:
        refuse_if(call.kind == BATCH, "nested")
        # The account is read again: the call before may have changed it.
        _call(session, "area", FUNCTIONS, session.account(signer.id), call.kind, bytes(call.fields))


class Keeper:
    """Nonces, versions and the order of leaders: the part of the Contract protocol that both chains share."""

    def order(self, state: StateReader, context: BlockContext) -> tuple[int, ...]:
        """The validators in the order in which they lead the height of `context`."""
        return tickets.order(state, context)

    def next_nonce(self, state: StateReader, signer: bytes) -> int:
        """The nonce that this public key must use next; UNKNOWN_NONCE for a key that may not sign."""
        account = _caller(state, signer)
        return UNKNOWN_NONCE if account is None else account.nonce + 1

    def consume_nonce(self, state: ChainState, signer: bytes, nonce: int) -> bool:
        """Count one transaction of this key if it carries the next nonce; kept when the call is refused."""
        account = _caller(state, signer)
        if account is None or nonce != account.nonce + 1:
            return False
        state.put(account_key(account.id), replace(account, nonce=nonce))
        return True

    def resume(self, state: ChainState, context: BlockContext, previous: bytes, tx: DecodedTransaction) -> str:
        """Nobody names other masters from outside the main chain: its own list changes it (CONSENSUS.md 8.8)."""
        return "unknown-kind"

    def rules_version(self, state: StateReader) -> int:
        """Version of the active rule set."""
        index = read(state, RULES_KEY, RulesIndex)
        assert index is not None, "genesis writes the rules"
        return index.active

    def inbox_cursor(self, state: StateReader) -> int:
        """Last consumed message of the main chain; 0 on the main chain itself."""
        cursor = read(state, INBOX_KEY, InboxCursor)
        return 0 if cursor is None else cursor.sequence

    def seats(self, state: StateReader) -> tuple[Seat, ...] | None:
        """The list of the next height."""
        return validators.seats(state)


def _caller(state: StateReader, signer: bytes) -> Account | None:
    """The account that a key may sign for now."""
    key = signer_of(state, signer)
    if key is None or key.to_height != FOREVER:
        return None
    return read(state, account_key(key.account), Account)


class AreaContract(Keeper):
    """watt_chain.ledger.Contract for the chain of one area."""

    def __init__(self, market: Market) -> None:
        self._market = market

    def genesis(self, state: ChainState, genesis: Genesis, chain: int) -> None:
        """Write the first state. Raises ValueError when the genesis document cannot be used."""
        session = self._session(state, genesis_context(genesis, chain))
        registration.found(session, genesis, chain)
        session.put(INBOX_KEY, InboxCursor(0, 0, network_of(genesis)))
        session.put(SUPPLY_KEY, Supply(0, 0))
        session.put(POOL_KEY, Pool(genesis.pool_points, 0))

    def begin(self, state: ChainState, context: BlockContext) -> None:
        """A term may turn; points of a new block go to the pool (F15, F17); every deadline that has passed acts."""
        session = self._session(state, context)
        cross_seats.begin(session, tickets.begin(session))
        validators.begin(session, (MAIN_CHAIN,))
        pool = session.pool()
        session.put(POOL_KEY, replace(pool, points=pool.points + session.rules().block_points))
        for number in session.open_events().numbers:
            _pass_deadlines(session, session.event(number))

    def resume(self, state: ChainState, context: BlockContext, previous: bytes, tx: DecodedTransaction) -> str:
        """Put the list in force that the regulator's Resume names; "" or the reject reason."""
        if tx.kind != RESUME:
            return "unknown-kind"
        mark = state.savepoint()

        def act(session: Session, signer: Account, fields: Any) -> None:
            validators.resume(session, fields, previous)

        try:
            dispatch(self._session(state, context), "area", {RESUME: act}, tx)
        except Refused as refusal:
            state.rollback(mark)
            return refusal.reason
        return ""

    def execute(self, state: ChainState, context: BlockContext, tx: DecodedTransaction) -> str:
        """Run one call; "" or the reject reason, and then the state is as before."""
        mark = state.savepoint()
        try:
            dispatch(self._session(state, context), "area", FUNCTIONS, tx)
        except Refused as refusal:
            state.rollback(mark)
            return refusal.reason
        return ""

    def _session(self, state: ChainState, context: BlockContext) -> Session:
        return Session(state, context, self._market)


def genesis_context(genesis: Genesis, chain: int) -> BlockContext:
    """The context in which the first state is written: height 0."""
    return BlockContext(network_of(genesis), chain, 0, genesis.protocol_start_s, 0, genesis.validators(chain))


def deadline(event: AreaEvent) -> tuple[Trigger, int] | None:
    """The next deadline of an event in its present state and its instant, protocol seconds."""
    spec = event.spec
    table = {
        State.ANNOUNCED: (Trigger.OPEN_DUE, spec.open_s),
        State.COMMIT: (Trigger.COMMIT_DUE, spec.commit_close_s),
        State.REVEAL: (Trigger.CONFIRM_DUE, spec.confirm_close_s),
        State.QUALIFIED: (Trigger.CONFIRM_DUE, spec.confirm_close_s),
        State.MATCHED: (Trigger.CONFIRM_DUE, spec.confirm_close_s),
        State.CONFIRMED: (Trigger.WINDOW_DUE, spec.window_start_s),
        State.DELIVERING: (Trigger.SETTLE_DUE, spec.settle_by_s),
        State.METERED: (Trigger.SETTLE_DUE, spec.settle_by_s),
    }
    return table.get(event.state)


def _pass_deadlines(session: Session, event: AreaEvent) -> None:
    """Fire every deadline that this block's time has reached, one after the other."""
    while True:
        due = deadline(event)
        if due is None or session.context.time_s < due[1]:
            return
        trigger = due[0]
        if trigger is Trigger.SETTLE_DUE:
            event = matching.abort(session, event, trigger, "settle-late")
        elif trigger is Trigger.CONFIRM_DUE and event.state is State.MATCHED:
            event = matching.close_confirmations(session, event)
        elif trigger is Trigger.CONFIRM_DUE:
            event = matching.abort(session, event, trigger, "match-late")
        else:
            event = session.advance(event, trigger)
