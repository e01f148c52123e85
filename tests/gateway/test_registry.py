"""The registry's file is replaced as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from watt_gateway.registry import PlugEntry, Profile, Registry, RegistryError

KETTLE = PlugEntry("00" * 8, "ab" * 64, "kettle", 3680, 1000)
HEATER = PlugEntry("11" * 8, "cd" * 64, "heater", 2000, 1000)


def test_what_is_paired_is_there_after_reopening(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.json")
    assert registry.pair(KETTLE) and registry.pair(HEATER)
    assert registry.set_profile(Profile(4000, "h25", "day-night"))
    registry.close()
    again = Registry(tmp_path / "registry.json")
    assert again.plugs() == {bytes(8): KETTLE, bytes([0x11] * 8): HEATER}
    assert again.profile() == Profile(4000, "h25", "day-night")


def test_pairing_again_changes_the_name_and_keeps_the_date_and_writes_only_when_needed(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.json")
    registry.pair(KETTLE)
    renamed = PlugEntry(KETTLE.plug_id, KETTLE.public, "boiler", 3680, 9999)
    assert registry.pair(renamed)
    assert registry.plugs()[bytes(8)] == PlugEntry(KETTLE.plug_id, KETTLE.public, "boiler", 3680, 1000)
    before = (tmp_path / "registry.json").stat().st_mtime_ns
    assert not registry.pair(renamed)
    assert (tmp_path / "registry.json").stat().st_mtime_ns == before
    assert registry.forget(bytes(8)) and not registry.forget(bytes(8))


def test_a_crash_before_the_rename_leaves_the_old_version(tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    Registry(path).pair(KETTLE)

    def power_cut(source: Path, target: Path) -> None:
        raise OSError("power cut")

    with pytest.raises(OSError, match="power cut"):
        Registry(path, replace=power_cut).pair(HEATER)
    assert list(Registry(path).plugs()) == [bytes(8)]


def test_at_the_moment_of_the_rename_both_names_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    Registry(path).pair(KETTLE)
    seen: list[int] = []

    def watching(source: Path, target: Path) -> None:
        assert len(Registry(target).plugs()) == 1, "the present version"
        seen.append(len(Registry(source).plugs()))
        os.replace(source, target)

    Registry(path, replace=watching).pair(HEATER)
    assert seen == [2]


def test_a_damaged_file_gives_way_to_its_backup(tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    registry = Registry(path)
    registry.pair(KETTLE)
    registry.pair(HEATER)
    path.write_bytes(path.read_bytes()[:40])
    restored = Registry(path)
    assert restored.restored_from_backup and list(restored.plugs()) == [bytes(8)]
    restored.pair(HEATER)
    assert len(Registry(path).plugs()) == 2 and not Registry(path).restored_from_backup


def test_when_both_are_damaged_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    path.write_text("[1, 2")
    with pytest.raises(RegistryError, match="not a registry"):
        Registry(path)


def test_entries_of_another_form_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    path.write_text('{"plugs": {"1": {"plug_id": 7}, "2": {"plug_id": "zz"}}, "profile": {"1": {"annual_kwh": "x"}}}')
    registry = Registry(path)
    assert registry.plugs() == {} and registry.profile() == Profile()
