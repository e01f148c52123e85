"""Acceptance rows that a plug holds up, shown on the portable tests that check the behaviour on every interpreter."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from watt_plug.storage import MemoryStorage
from watt_wire import batch, checkpoint, record

sys.path.insert(0, str(Path(__file__).resolve().parent))
app, life, switch, interlock = (
    importlib.import_module(f"portable_{name}") for name in ("app", "life", "switch", "interlock")
)
tools = importlib.import_module("plug_tools")


@pytest.mark.row("C2", "C3")
def test_voltage_current_power_switching_times_and_status_of_an_appliance_are_recorded_and_signed() -> None:
    app.test_a_record_shows_minimum_mean_and_maximum()
    life.test_an_appliance_that_goes_on_and_off_is_signed_with_its_energy_and_cuts_the_record()


@pytest.mark.row("C5", "C10")
def test_the_plug_switches_its_appliance_by_a_signed_order() -> None:
    switch.test_a_command_is_verified_in_slices_signed_as_accepted_and_moves_the_relay_into_the_record()


@pytest.mark.row("C11")
def test_a_remote_power_off_needs_two_organisations_ends_by_itself_and_spares_the_essential() -> None:
    interlock.test_q1_one_stolen_key_moves_nothing()
    interlock.test_q2_two_organisations_together_stay_within_the_households_rules()
    interlock.test_q9_essential_set_while_an_order_is_under_way_wins()


@pytest.mark.row("D1")
def test_a_plug_keeps_its_own_consumption_and_nobody_elses() -> None:
    storage = MemoryStorage()
    plug = tools.make_plug(storage)
    plug.start(tools.START_S)
    tools.run_plug(plug, tools.START_S, tools.START_S + 900, 40)
    frames = [batch.decode(storage.files[name]) for name in storage.names() if name.startswith("b")]
    owners = {checkpoint.decode(head).plug_id for head, _ in frames}
    owners |= {record.decode(item).plug_id for _, items in frames for item in items}
    assert owners == {plug.plug_id} and sum(len(items) for _, items in frames) == 15
    assert all(name[0] == "b" or name.startswith("journal") for name in storage.names())


@pytest.mark.row("E5", "E6")
def test_a_record_is_written_when_it_is_made_and_signed_by_its_maker() -> None:
    app.test_a_restart_keeps_register_counter_chain_and_open_records()
    app.test_a_quarter_hour_is_fifteen_records_under_one_signature()
