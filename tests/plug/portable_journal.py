"""The journal and the outbox: what survives, what is refused, what is bounded."""

from watt_plug import journal, outbox
from watt_plug.journal import CorruptionError, Journal, State
from watt_plug.storage import MemoryStorage
from watt_wire import batch, checkpoint, merkle, record


def state(counter: int = 3) -> State:
    made = State()
    made.boot_id = 2
    made.counter = counter
    made.previous = b"\x07" * 32
    made.next_sequence = 40
    made.import_mwh = 123456789012
    made.remainder_uj = 3599999
    made.position = 131071
    made.position_s = 1700000000
    made.time_s = 1700000005
    made.coefficients = (1, 2, 0xFFFFFF)
    made.open_records = [bytes([7]) * record.SIZE, bytes([8]) * record.SIZE]
    return made


def fields(made: State) -> list[object]:
    names = [name for name in dir(made) if name[0] != "_"]
    return [(name, getattr(made, name)) for name in sorted(names)]


def frame(counter: int) -> bytes:
    body = checkpoint.encode(
        checkpoint.Checkpoint(
            1,
            b"\x01" * 8,
            1,
            counter,
            bytes(32),
            merkle.root([]),
            1,
            0,
            1700000000,
            ord("S"),
            5,
            0,
            bytes(32),
            bytes(32),
            1,
        )
    )
    return checkpoint.seal(body, b"\x01" * 64)


def filled(storage: MemoryStorage, count: int) -> outbox.Outbox:
    made = outbox.Outbox(storage)
    for counter in range(1, count + 1):
        made.store(counter, batch.encode(frame(counter), []))
        made.add(counter, checkpoint.frame_hash(frame(counter)))
    return made


def acknowledgement(counter: int) -> bytes:
    return batch.encode_ack(counter, checkpoint.frame_hash(frame(counter)))


def test_a_saved_state_is_loaded_field_by_field() -> None:
    storage = MemoryStorage()
    Journal(storage).save(state())
    assert fields(Journal(storage).load()) == fields(state())


def test_a_plug_that_never_ran_begins_at_zero() -> None:
    fresh = Journal(MemoryStorage()).load()
    assert (fresh.counter, fresh.boot_id, fresh.next_sequence, fresh.import_mwh) == (0, 0, 1, 0)
    assert fresh.previous == checkpoint.NO_PREVIOUS and fresh.position == -1


def test_a_torn_save_leaves_the_one_before() -> None:
    for cut in (0, 1, 50, 100, 200):
        storage = MemoryStorage()
        kept = Journal(storage)
        kept.save(state(3))
        kept.save(state(4))
        young = [name for name in storage.names() if journal.decode(storage.files[name])[1].counter == 4]
        storage.files[young[0]] = storage.files[young[0]][:cut]
        assert Journal(storage).load().counter == 3


def test_every_flipped_bit_of_a_slot_is_found() -> None:
    slot = journal.encode(state(), 9)
    assert journal.decode(slot)[0] == 9
    for index in range(len(slot)):
        damaged = bytearray(slot)
        damaged[index] ^= 1 << index % 8
        assert journal.decode(bytes(damaged)) is None, index


def test_a_plug_whose_slots_are_all_damaged_stops() -> None:
    storage = MemoryStorage()
    Journal(storage).save(state())
    for name in storage.names():
        storage.files[name] = storage.files[name][:-1] + b"\x00"
    try:
        Journal(storage).load()
    except CorruptionError:
        return
    raise AssertionError("a damaged journal was taken for a new plug")


def test_only_the_gateways_word_removes_a_batch() -> None:
    made = filled(MemoryStorage(), 2)
    for payload in (b"", acknowledgement(1)[:-1] + b"\x00", acknowledgement(1)[:4], acknowledgement(3)):
        assert not made.acknowledge(payload)
    assert made.counters() == [1, 2]
    assert made.acknowledge(acknowledgement(1))
    assert made.counters() == [2]
    assert not made.acknowledge(acknowledgement(1))


def test_batches_are_sent_in_a_window_and_repeated_ever_more_slowly() -> None:
    window = outbox.WINDOW
    wait_s = outbox.RESEND_FIRST_S
    made = filled(MemoryStorage(), window + 2)
    assert [counter for counter, _ in made.due(0)] == list(range(1, window + 1))
    assert made.due(wait_s - 1) == []
    assert len(made.due(wait_s)) == window
    assert made.due(3 * wait_s - 1) == [] and len(made.due(3 * wait_s)) == window
    made.acknowledge(acknowledgement(1))
    assert [counter for counter, _ in made.due(3 * wait_s + 1)] == [window + 1]
    made.forget_connection()
    assert [counter for counter, _ in made.due(3 * wait_s + 2)] == list(range(2, window + 2))


def test_a_repetition_never_goes_without_the_older_ones() -> None:
    """A gateway that sees one frame three times, and nothing older, gives the older ones up."""
    wait_s = outbox.RESEND_FIRST_S
    made = filled(MemoryStorage(), 1)
    for time_s in (0, wait_s, 3 * wait_s):
        assert [counter for counter, _ in made.due(time_s)] == [1]
    made.store(2, batch.encode(frame(2), []))
    made.add(2, bytes(32))
    assert [counter for counter, _ in made.due(3 * wait_s + 1)] == [2]
    # The first one would wait until 7 * wait_s by itself.
    assert [counter for counter, _ in made.due(4 * wait_s + 1)] == [1, 2]
    assert [counter for counter, _ in made.due(6 * wait_s + 1)] == [1, 2]


def test_a_full_outbox_gives_up_the_oldest_and_counts_it() -> None:
    storage = MemoryStorage()
    made = outbox.Outbox(storage)
    data = batch.encode(frame(1), [])
    for counter in range(1, outbox.PENDING_MAX + 2):
        made.store(counter, data)
        made.add(counter, bytes(32))
    assert len(made.counters()) == outbox.PENDING_MAX == len(storage.names())
    assert made.counters()[0] == 2 and made.dropped == 1


def test_a_restart_keeps_what_was_sent_and_removes_what_the_journal_does_not_know() -> None:
    storage = MemoryStorage()
    filled(storage, 3)
    storage.write("b0000000099", b"torn")
    restored = outbox.Outbox(storage)
    restored.restore(2)
    assert restored.counters() == [1, 2]
    assert storage.names() == ["b0000000001", "b0000000002"]
    assert restored.acknowledge(acknowledgement(2))
