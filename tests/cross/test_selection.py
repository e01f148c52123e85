"""Which nodes serve trades across areas: what the score rewards, and what nobody can buy."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from watt_chain.cross.selection import (
    AVAILABLE_PPM,
    PPM,
    TERMS_MAX,
    Standing,
    choose,
    our_scores,
    paper_score,
    residual,
    seats,
    slope,
)
from watt_chain.crypto import sha256

SEED = sha256(b"seed")


def node(
    index: int, credits: tuple[int, ...] = (60, 62, 64), totals: tuple[int, ...] = (180, 184, 186), **more: int
) -> Standing:
    return Standing(index, credits, totals, **more)


credit_lists = st.lists(st.integers(1, 100), min_size=1, max_size=8).map(tuple)
histories = st.lists(st.integers(0, 1000), min_size=0, max_size=10).map(tuple)


@st.composite
def areas(draw: st.DrawFn) -> list[Standing]:
    return [
        Standing(
            index,
            draw(credit_lists),
            draw(histories),
            draw(st.integers(0, PPM)),
            draw(st.integers(0, PPM)),
            draw(st.booleans()),
            draw(st.integers(0, 4)),
            draw(st.integers(0, 3)),
        )
        for index in range(draw(st.sampled_from((1, 2, 4, 7, 10))))
    ]


@pytest.mark.row("B23", "H8")
@given(areas(), st.binary(min_size=32, max_size=32), st.sampled_from(("ours", "paper")))
def test_every_area_has_its_seats_filled_with_different_nodes(area: list[Standing], seed: bytes, mode: str) -> None:
    chosen = choose(area, seed, mode)  # type: ignore[arg-type]
    assert len(chosen) == len(set(chosen)) == seats(len(area))
    assert set(chosen) <= {one.index for one in area}
    assert chosen == choose(list(reversed(area)), seed, mode)  # type: ignore[arg-type]


@pytest.mark.row("H5", "H6")
@given(credit_lists, st.integers(1, 50))
def test_the_papers_score_rises_with_the_total_and_falls_with_the_variance(credits: tuple[int, ...], more: int) -> None:
    one = Standing(0, credits, ())
    raised = Standing(0, tuple(credit + more for credit in credits), ())
    assert paper_score(raised) > paper_score(one)
    pair = Standing(0, (50, 50), ())
    spread = Standing(0, (50 - min(more, 49), 50 + min(more, 49)), ())
    assert paper_score(spread) < paper_score(pair)
    assert paper_score(Standing(0, tuple(reversed(credits)), ())) == paper_score(one)


@pytest.mark.row("H7")
def test_a_steady_rise_is_preferred_to_a_jump_and_to_a_fall() -> None:
    rising = node(0, totals=(180, 182, 184, 186))
    jumping = node(1, totals=(100, 260, 90, 270))
    falling = node(2, totals=(200, 195, 190, 186))
    flat = node(3, totals=(186, 186, 186, 186))
    assert choose([rising, jumping, falling, flat], SEED, "paper") == (0, 3)
    scores = our_scores([rising, replace(falling, index=1), flat, node(2, totals=(186, 186, 187, 186))])
    assert scores[0] > scores[1]


@pytest.mark.row("H8")
def test_nobody_sits_longer_than_its_terms_and_half_the_seats_change_at_a_time() -> None:
    area = [node(index) for index in range(4)]
    sat: dict[int, int] = dict.fromkeys(range(4), 0)
    for epoch in range(40):
        chosen = choose([replace(one, terms=sat[one.index]) for one in area], sha256(bytes([epoch])))
        stayed = sum(1 for index in chosen if sat[index])
        assert stayed <= 1
        sat = {index: sat[index] + 1 if index in chosen else 0 for index in sat}
        assert max(sat.values()) <= TERMS_MAX


def test_who_lied_or_is_absent_or_new_does_not_sit_while_others_can() -> None:
    area = [
        node(0, convicted=True),
        node(1, available_ppm=AVAILABLE_PPM - 1),
        node(2, tenure=1),
        node(3),
        node(4),
    ]
    for seed in range(50):
        assert choose(area, sha256(bytes([seed]))) == (3, 4)


def test_many_users_alone_buy_no_seat() -> None:
    """The paper's total ranks by size; the mean does not."""
    small = [node(index, credits=(80,) * 5, totals=(400,) * 4) for index in range(3)]
    large = node(3, credits=(55,) * 50, totals=(2750,) * 4)
    assert 3 in choose([*small, large], SEED, "paper")
    scores = our_scores([*small, large])
    assert scores[3] < min(scores[index] for index in range(3))


def test_the_draw_follows_the_weights_and_not_the_order() -> None:
    area = [node(index, relayed_ppm=PPM if index < 2 else PPM - 40_000 * index) for index in range(4)]
    counts = dict.fromkeys(range(4), 0)
    for number in range(3000):
        for index in choose(area, sha256(number.to_bytes(4, "big"))):
            counts[index] += 1
    assert sum(counts.values()) == 6000
    assert min(counts[0], counts[1]) > max(counts[2], counts[3])
    assert abs(counts[0] - counts[1]) < 200, "equal nodes are drawn equally often"
    assert min(counts.values()) > 600, "the weakest has a chance too"


@given(st.integers(-5, 5), st.integers(0, 100), st.integers(2, 8))
def test_slope_and_residual_of_a_line(rise: int, start: int, count: int) -> None:
    line = [start + rise * at for at in range(count)]
    assert slope(line) == rise and residual(line) == 0
