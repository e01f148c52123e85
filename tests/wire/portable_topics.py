"""Topics on any interpreter: the one spelling of each, what parses back, what does not."""

from watt_wire import topics
from watt_wire.errors import DecodeError, EncodeError
from wire_vectors import raises

PLUG = bytes.fromhex("0123456789abcdef")


def test_every_topic_has_its_one_spelling_and_parses_back() -> None:
    assert topics.plug_batch("home-1", PLUG) == "wp/1/home/home-1/plug/0123456789abcdef/batch"
    assert topics.plug_ack("home-1", PLUG) == "wp/1/home/home-1/plug/0123456789abcdef/ack"
    assert topics.home_plan("home-1") == "wp/1/home/home-1/plan"
    assert topics.area_tx("east", "home-1") == "wp/1/area/east/tx/home-1"
    assert topics.area_query("east", 3, "home-1") == "wp/1/area/east/node/3/query/home-1"
    assert topics.area_reply("east", "home-1") == "wp/1/area/east/reply/home-1"
    assert topics.area_notice("east") == "wp/1/area/east/notice"
    assert topics.parse_plug_batch(topics.plug_batch("a", PLUG)) == ("a", PLUG)
    assert topics.parse_plug_ack(topics.plug_ack("a", PLUG)) == ("a", PLUG)
    assert topics.parse_home_plan(topics.home_plan("a")) == "a"
    assert topics.parse_area_tx(topics.area_tx("e", "a")) == ("e", "a")
    assert topics.parse_area_query(topics.area_query("e", 99, "a")) == ("e", 99, "a")
    assert topics.parse_area_reply(topics.area_reply("e", "a")) == ("e", "a")
    assert topics.parse_area_notice(topics.area_notice("e")) == "e"


def test_filters_stand_for_their_topics() -> None:
    assert topics.plug_batch_filter("a") == "wp/1/home/a/plug/+/batch"
    assert topics.all_plug_batch_filter() == "wp/1/home/+/plug/+/batch"
    assert topics.all_home_plan_filter() == "wp/1/home/+/plan"
    assert topics.area_tx_filter("e") == "wp/1/area/e/tx/+"
    assert topics.area_query_filter("e", 0) == "wp/1/area/e/node/0/query/+"


def test_a_name_outside_the_rule_makes_no_topic() -> None:
    assert topics.is_name("a" * 32)
    for bad in ("", "a" * 33, "A", "a/b", "+", "#", "a b", "a_b", "ä", "a\n", "a\x00", None, 7):
        raises(EncodeError, topics.home_plan, bad)
        raises(EncodeError, topics.area_tx, "east", bad)
        raises(EncodeError, topics.area_tx, bad, "a")
    for bad_plug in (b"", bytes(7), bytes(9), "0123456789abcdef"):
        raises(EncodeError, topics.plug_batch, "a", bad_plug)
    for node in (-1, 100, "1", None):
        raises(EncodeError, topics.area_query, "e", node, "a")


def test_a_topic_of_another_shape_is_refused() -> None:
    for bad in (
        "",
        "wp/1/home/a/plug/0123456789abcdef",
        "wp/1/home/a/plug/0123456789abcdef/batch/",
        "/wp/1/home/a/plug/0123456789abcdef/batch",
        "wp/2/home/a/plug/0123456789abcdef/batch",
        "wp/1/home/a/plug/0123456789abcdef/ack",
        "wp/1/home/A/plug/0123456789abcdef/batch",
        "wp/1/home//plug/0123456789abcdef/batch",
        "wp/1/home/a/plug/0123456789ABCDEF/batch",
        "wp/1/home/a/plug/0123456789abcde/batch",
        "wp/1/home/a/plug/0123456789abcdefff/batch",
        "wp/1/home/a/plug/+/batch",
    ):
        raises(DecodeError, topics.parse_plug_batch, bad)
    for bad in ("wp/1/area/e/node/07/query/a", "wp/1/area/e/node/100/query/a", "wp/1/area/e/node//query/a"):
        raises(DecodeError, topics.parse_area_query, bad)
    raises(DecodeError, topics.parse_area_tx, "wp/1/area/e/tx/" + "a" * 33)
