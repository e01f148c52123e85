"""Stage 1, user registration: accounts of the four roles, metering points, keys, and money in and out.

Source: paper section 4.1 (registration), model.md rows J2, J3, J23, C9; design.md sections 3 and 6.
"""

from msgspec.structs import replace

from watt_chain import codec, crypto
from watt_chain.contract import tickets, validators
from watt_chain.contract.access import Office, Session, refuse, refuse_if
from watt_chain.contract.event import MONEY_MAX
from watt_chain.contract.kinds import Deposit, Enrol, Revoke, Rotate, Withdraw
from watt_chain.contract.objects import (
    FOREVER,
    OPEN_KEY,
    RULES_KEY,
    Account,
    OpenEvents,
    Plug,
    Role,
    RulesIndex,
    Signer,
    User,
    account_key,
    plug_key,
    rules_key,
    signer_key,
    user_key,
)
from watt_chain.contract.rules import RuleSet, check_rule_set
from watt_chain.genesis import Genesis


def found(session: Session, genesis: Genesis, chain: int) -> None:
    """Write what every chain starts with: offices, validators, rule sets.

    Raises ValueError when the genesis document cannot be used (one key in two roles, a bad rule set): a fault of
    whoever made the network, found before the first block.
    """
    offices: tuple[tuple[Role, bytes], ...] = (
        ("regulator", genesis.regulator),
        ("grid", genesis.grid),
        ("aggregator", genesis.aggregator),
    )
    for role, public in offices:
        _open_account(session, role, public, chain, 0, 0)
        session.put(b"office/" + role.encode(), Office(crypto.id8(public)))
    for index, validator in enumerate(genesis.validators(chain)):
        _open_account(session, "validator", validator.public, chain, index, 0)
    validators.found(session, genesis, chain)
    for encoded in genesis.rules:
        rules = codec.decode(encoded, RuleSet)
        reason = check_rule_set(rules)
        if reason:
            raise ValueError(f"rule set {rules.version} of the genesis file: {reason}")
        session.put(rules_key(rules.version), rules)
    if session.get(rules_key(genesis.active_rules), RuleSet) is None:
        raise ValueError(f"the genesis file lacks its active rule set {genesis.active_rules}")
    session.put(RULES_KEY, RulesIndex(genesis.active_rules, []))
    session.put(OPEN_KEY, OpenEvents([], 0))
    tickets.found(session)


def _open_account(session: Session, role: Role, public: bytes, chain: int, node: int, credit: int) -> bytes:
    account = crypto.id8(public)
    if session.get(signer_key(account), Signer) is not None:
        raise ValueError("one key has two roles")
    session.put(
        account_key(account), Account(account, role, public, 0, 0, 0, 0, 0, 0, credit, chain, node, False, False)
    )
    session.put(signer_key(account), Signer(account, session.context.height, FOREVER))
    return account


def enrol(session: Session, signer: Account, fields: Enrol) -> None:
    """Register a user: account with the start credit, metering point, plugs."""
    account = crypto.id8(fields.public)
    refuse_if(not crypto.is_public_key(fields.public), "key")
    known = session.get(signer_key(account), Signer) is not None
    refuse_if(known or validators.is_awaited(session, fields.public), "exists")
    refuse_if(fields.node not in validators.own_list(session).numbers, "node")
    _open_account(session, "user", fields.public, signer.chain, fields.node, session.rules().credit_start)
    plugs: list[bytes] = []
    for plug in fields.plugs:
        refuse_if(not crypto.is_public_key(plug.public), "key")
        plug_id = crypto.id8(plug.public)
        refuse_if(session.get(plug_key(plug_id), Plug) is not None, "plug-exists")
        plugs.append(plug_id)
        height = session.context.height
        session.put(
            plug_key(plug_id),
            Plug(
                plug_id,
                account,
                plug.public,
                plug.key_class,
                plug.rated_w,
                height,
                FOREVER,
                0,
                codec.ZERO32,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
            ),
        )
    session.put(user_key(account), User(plugs, fields.main_meter, fields.annual_kwh, fields.profile, fields.essential))


def _user_account(session: Session, account: bytes) -> Account:
    found = session.get(account_key(account), Account)
    if found is None or found.role != "user":
        refuse("unknown-user")
    return found


def _end_key(session: Session, account: Account) -> bool:
    """End the validity of the account's present key; false when it had ended before."""
    key = signer_key(crypto.id8(account.public))
    record = session.need(key, Signer)
    if record.to_height != FOREVER:
        return False
    session.put(key, replace(record, to_height=session.context.height))
    return True


def rotate(session: Session, signer: Account, fields: Rotate) -> None:
    """A new key for an account, from this block on; the account keeps its id, its money and its nonce."""
    account = _user_account(session, fields.account)
    refuse_if(not crypto.is_public_key(fields.public), "key")
    key = signer_key(crypto.id8(fields.public))
    known = session.get(key, Signer) is not None
    refuse_if(known or validators.is_awaited(session, fields.public), "exists")
    _end_key(session, account)
    session.put(key, Signer(account.id, session.context.height, FOREVER))
    session.store_account(replace(account, public=fields.public))


def revoke(session: Session, signer: Account, fields: Revoke) -> None:
    """End the validity of a plug or of an account's key. What it signed in earlier blocks stays valid."""
    if fields.subject == "user":
        refuse_if(not _end_key(session, _user_account(session, fields.id)), "already")
        return
    plug = session.get(plug_key(fields.id), Plug)
    if plug is None:
        refuse("unknown-plug")
    refuse_if(plug.to_height != FOREVER, "already")
    session.put(plug_key(plug.id), replace(plug, to_height=session.context.height))


def deposit(session: Session, signer: Account, fields: Deposit) -> None:
    """Money comes in for a user; what the user owes the grid is taken from it first."""
    account = _user_account(session, fields.user)
    supply = session.supply()
    refuse_if(supply.deposited_u + fields.amount_u > MONEY_MAX, "amount")
    owed = min(account.arrears_u, fields.amount_u)
    session.store_account(
        replace(account, free_u=account.free_u + fields.amount_u - owed, arrears_u=account.arrears_u - owed)
    )
    session.move(signer.id, free_u=owed)
    session.put_supply(replace(supply, deposited_u=supply.deposited_u + fields.amount_u))


def withdraw(session: Session, signer: Account, fields: Withdraw) -> None:
    """Money leaves from the user's free money, unless it owes the grid."""
    refuse_if(signer.arrears_u > 0, "arrears")
    refuse_if(signer.free_u < fields.amount_u, "balance")
    session.move(signer.id, free_u=-fields.amount_u)
    supply = session.supply()
    session.put_supply(replace(supply, withdrawn_u=supply.withdrawn_u + fields.amount_u))
