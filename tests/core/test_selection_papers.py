"""Selectors that come from papers, against the papers' algorithms written down again, line by line."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fma_core.selection import (
    Candidate,
    FedCS,
    LeastRecentlyUsed,
    Oort,
    PastRound,
    Pool,
    PowerOfChoice,
    RoundRobin,
    Selector,
    Stratified,
    TiFL,
    Weighted,
    select,
)
from tests.core.selections import candidates_of

# Four standard errors of a share of 1000 draws are 0.063 at most.
DRAWS, MOST = 1000, 0.063


def chosen(
    selector: Selector,
    candidates: list[Candidate],
    num: int | None,
    *,
    number: int = 1,
    seed: int = 0,
    past: tuple[PastRound, ...] = (),
) -> tuple[str, ...]:
    return select(candidates, selector=selector, num=num, seed=seed, round_number=number, past=past).chosen


def frequencies(
    selector: Selector, candidates: list[Candidate], num: int, draws: int = DRAWS
) -> dict[str, float]:
    counts = Counter(name for seed in range(draws) for name in chosen(selector, candidates, num, seed=seed))
    return {each.client: counts[each.client] / draws for each in candidates}


# Oort: equation 1 and algorithm 1


def oort_utilities(clients: list[Candidate], R: int, T: float, alpha: float, clip: float) -> dict[str, float]:
    """Util(i) of the explored clients."""
    U = {c.client: c.num_examples * math.sqrt(c.loss_rms**2) for c in clients}
    values = sorted(U.values())
    # The percentile, by linear interpolation between the two nearest.
    position = clip / 100 * (len(values) - 1)
    low = math.floor(position)
    high = min(low + 1, len(values) - 1)
    bound = values[low] + (position - low) * (values[high] - values[low])
    util = {}
    for c in clients:
        L = R - c.rounds_since_turn
        util[c.client] = min(U[c.client], bound) + math.sqrt(0.1 * math.log(R) / L)
        if c.round_s > T:
            util[c.client] *= (T / c.round_s) ** alpha
    return util


@given(st.integers(6, 400), st.floats(1, 100), st.floats(0, 4), st.sampled_from([50.0, 95.0, 100.0]))
def test_oort_utilities_are_the_papers(R: int, T: float, alpha: float, clip: float) -> None:
    clients = candidates_of(30)
    found = Oort(preferred_s=T, alpha=alpha, clip_percentile=clip).utilities(Pool(tuple(clients), 5, R))

    expected = oort_utilities(clients, R, T, alpha, clip)
    assert found.tolist() == pytest.approx([expected[c.client] for c in clients], rel=1e-12)


@pytest.mark.parametrize("cutoff", [0.5, 0.95, 1.0])
def test_oort_exploits_clients_near_the_best(cutoff: float) -> None:
    clients, K, R = candidates_of(40), 6, 50
    selector = Oort(epsilon=0, epsilon_min=0, cutoff=cutoff, preferred_s=30.0)
    util = oort_utilities(clients, R, 30.0, 2.0, 95)
    threshold = cutoff * sorted(util.values(), reverse=True)[K - 1]
    admitted = {name for name, value in util.items() if value >= threshold}

    seen = {name for seed in range(300) for name in chosen(selector, clients, K, number=R, seed=seed)}
    assert seen <= admitted
    assert seen == admitted or cutoff == 0.5
    assert all(len(chosen(selector, clients, K, number=R, seed=seed)) == K for seed in range(10))


def test_oort_draws_in_proportion_to_utility() -> None:
    clients = [
        Candidate(name, num_examples=1, loss_rms=loss, rounds_since_turn=1)
        for name, loss in zip("abc", (1.0, 2.0, 5.0), strict=True)
    ]
    found = frequencies(Oort(epsilon=0, epsilon_min=0, cutoff=0.0, clip_percentile=100), clients, 1)

    assert found == pytest.approx({"a": 1 / 8, "b": 2 / 8, "c": 5 / 8}, abs=MOST)


def test_oort_does_not_explore_those_whose_updates_are_rejected() -> None:
    known = candidates_of(9)
    rejected = Candidate("rejected", times_rejected=1, rounds_since_turn=1)
    selector = Oort(epsilon=1, alpha=0, clip_percentile=100)

    assert chosen(selector, [*known, rejected, Candidate("new")], 1) == ("new",)
    utilities = selector.utilities(Pool((*known, rejected), 1, 1))
    assert utilities[-1] == np.median(utilities[:-1])
    # With nobody to compare it with, it is one more that is not known.
    assert chosen(selector, [rejected], 1) == ("rejected",)


@pytest.mark.parametrize(("num_rejected", "growth"), [(0, 0.0), (3, 5.0)])
def test_the_pacer_counts_the_answers_that_were_used(num_rejected: int, growth: float) -> None:
    names = tuple("abcd")
    past = [
        PastRound(1, names, names, metrics={"loss": 1.0}),
        PastRound(2, names, names, metrics={"loss": 1.0}, rejected=names[:num_rejected]),
    ]
    selector = Oort(preferred_s=10.0, pacer_step_s=5.0, pacer_window=1)

    assert selector.preferred(np.empty(0), past) == 10.0 + growth


def test_oort_explores_new_clients_by_speed() -> None:
    known = candidates_of(20)
    new = [Candidate(f"new{speed}", upload_mbps=float(speed)) for speed in (1, 2, 5)]
    selector = Oort(epsilon=0.5, epsilon_min=0.5)
    counts = Counter(
        name
        for seed in range(DRAWS)
        for name in chosen(selector, [*known, *new], 2, seed=seed, number=9)
        if name.startswith("new")
    )

    assert sum(counts.values()) == DRAWS  # half of two
    assert counts["new5"] / DRAWS == pytest.approx(5 / 8, abs=MOST)


@pytest.mark.parametrize(("number", "epsilon"), [(1, 0.9), (2, 0.882), (11, 0.9 * 0.98**10), (500, 0.2)])
def test_oort_explores_less_and_less(number: int, epsilon: float) -> None:
    assert Oort().exploration(number) == pytest.approx(epsilon, rel=1e-12)


def test_oort_explores_in_small_rounds_too() -> None:
    clients = [*candidates_of(20), Candidate("new")]
    share = frequencies(Oort(epsilon=0.2), clients, 1)["new"]

    assert share == pytest.approx(0.2, abs=MOST)


@pytest.mark.parametrize("num_known", [0, 2])
def test_oort_fills_up_with_what_there_is(num_known: int) -> None:
    clients = [*candidates_of(2)[:num_known], *(Candidate(f"new{index}") for index in range(6))]

    assert len(chosen(Oort(epsilon=0, epsilon_min=0), clients, 5)) == 5
    assert len(chosen(Oort(epsilon=1), candidates_of(9), 5)) == 5


def oort_pacer(U: list[float], W: int, T: float, step: float) -> float:
    """T after all rounds: the condition of algorithm 1, before each of them."""
    for R in range(2 * W, len(U) + 1):
        if sum(U[R - 2 * W : R - W]) > sum(U[R - W : R]):
            T += step
    return T


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 5))
def test_oort_pacer_is_the_papers(losses: list[int], W: int) -> None:
    past = [
        PastRound(number, ("a", "b"), ("a", "b"), metrics={"loss": loss})
        for number, loss in enumerate(losses, start=1)
    ]
    found = Oort(preferred_s=10.0, pacer_step_s=3.0, pacer_window=W).preferred(np.array([1.0]), past)

    assert found == pytest.approx(oort_pacer([2.0 * loss for loss in losses], W, 10.0, 3.0))


def test_oort_takes_a_mean_loss_where_there_is_no_other_and_the_30th_percentile_of_times() -> None:
    clients = [
        Candidate(f"{index:02}", num_examples=10, loss=2.0, rounds_since_turn=1, round_s=float(index))
        for index in range(1, 12)
    ]
    found = Oort().utilities(Pool(tuple(clients), 1, 2))

    assert found[3] == pytest.approx(20 + math.sqrt(0.1 * math.log(2)))
    assert found[10] == pytest.approx(found[3] * (4 / 11) ** 2)


def test_oort_leaves_out_clients_that_had_all_their_turns() -> None:
    clients = candidates_of(8)
    found = select(clients, selector=Oort(max_turns=2), num=8, seed=0, round_number=9)

    assert set(found.chosen) == {each.client for each in clients if each.times_chosen < 2}
    assert {refusal.code for refusal in found.refused.values()} == {"too_many_turns"}


def test_oort_normalised_utilities_are_shares() -> None:
    clients = [replace(each, round_s=None) for each in candidates_of(30)]
    found = Oort(normalise=True).utilities(Pool(tuple(clients), 1, 1))

    assert (found.min(), found.max()) == (0.0, 1.0)


def test_oort_refuses_a_share_that_rises() -> None:
    with pytest.raises(ValueError, match="epsilon_min must be at most epsilon"):
        Oort(epsilon=0.1)


# Power of choice: π_rpow-d


@given(st.permutations(range(12)), st.integers(1, 12))
def test_power_of_choice_of_all_takes_the_largest_losses(order: list[int], m: int) -> None:
    clients = [Candidate(f"{index:02}", num_examples=5, loss=float(loss)) for index, loss in enumerate(order)]
    worst = sorted(clients, key=lambda each: -float(each.loss or 0))[:m]

    assert chosen(PowerOfChoice(d=12), clients, m) == tuple(sorted(each.client for each in worst))


def test_power_of_choice_of_no_more_than_are_wanted_is_a_weighted_draw() -> None:
    clients = [
        Candidate(name, num_examples=size, loss=size) for name, size in zip("abc", (1, 2, 5), strict=True)
    ]

    assert chosen(PowerOfChoice(d=1), clients, 2, seed=4) == chosen(Weighted(), clients, 2, seed=4)


def test_power_of_choice_draws_candidates_by_their_data_and_takes_the_worst() -> None:
    """The worse of 2 drawn without replacement: the probabilities from the definition."""
    p = {"a": Fraction(1, 8), "b": Fraction(2, 8), "c": Fraction(5, 8)}
    losses = {"a": 3.0, "b": 2.0, "c": 1.0}
    expected: Counter[str] = Counter()
    for first in p:
        for second in set(p) - {first}:
            worse = max(first, second, key=lambda name: losses[name])
            expected[worse] += p[first] * p[second] / (1 - p[first])
    clients = [Candidate(name, num_examples=int(8 * p[name]), loss=losses[name]) for name in p]

    found = frequencies(PowerOfChoice(d=2), clients, 1)
    assert found == pytest.approx({name: float(expected[name]) for name in p}, abs=MOST)


def test_power_of_choice_takes_clients_without_a_loss_first() -> None:
    clients = [*candidates_of(5), Candidate("new")]

    assert chosen(PowerOfChoice(d=6), clients, 1) == ("new",)


def test_power_of_choice_does_not_favour_those_whose_updates_are_rejected() -> None:
    clients = [
        *(Candidate(name, loss=loss) for name, loss in zip("abc", (1.0, 3.0, 5.0), strict=True)),
        Candidate("rejected", times_rejected=2),
        Candidate("new"),
    ]

    # Like the median of the others, 3: equal ones are parted by lot.
    order = [sorted(chosen(PowerOfChoice(d=5), clients, num)) for num in (1, 2)]
    assert order == [["new"], ["c", "new"]]
    third = {name for seed in range(40) for name in chosen(PowerOfChoice(d=5), clients, 3, seed=seed)}
    assert third == {"new", "c", "b", "rejected"}
    strangers = [Candidate("rejected", times_rejected=1), Candidate("new")]
    assert chosen(PowerOfChoice(d=2), strangers, 1) == ("new",)


def test_power_of_choice_says_who_was_drawn_in_vain() -> None:
    found = select(candidates_of(20), selector=PowerOfChoice(d=8), num=3, seed=0, round_number=1)

    assert Counter(refusal.code for refusal in found.refused.values()) == {
        "smaller_loss": 5,
        "not_chosen": 12,
    }


# FedCS: algorithm 3


def fedcs(clients: dict[str, tuple[float, float, float]], T_round: float, T_cs_agg: float) -> set[str]:
    """Algorithm 3, of (t^d, t^UD, t^UL) of each client, as it is printed."""
    K, S, theta = dict(clients), set[str](), 0.0

    def slowest(names: set[str]) -> float:
        return max((clients[name][0] for name in names), default=0.0)

    while K:
        costs = {k: slowest(S | {k}) - slowest(S) + K[k][2] + max(0.0, K[k][1] - theta) for k in K}
        x = min(costs, key=lambda k: costs[k])
        # Equal costs are parted by lot, which the paper leaves open.
        assume(all(costs[k] > costs[x] + 1e-9 for k in costs if k != x))
        _, t_UD, t_UL = K.pop(x)
        theta_new = theta + t_UL + max(0.0, t_UD - theta)
        t = T_cs_agg + slowest(S | {x}) + theta_new
        assume(abs(t - T_round) > 1e-9)
        if t < T_round:
            theta = theta_new
            S.add(x)
    return S


SECONDS = st.floats(0.5, 60)


@given(st.lists(st.tuples(SECONDS, SECONDS, SECONDS), min_size=1, max_size=12), st.floats(10, 400))
def test_fedcs_is_algorithm_3(times: list[tuple[float, float, float]], deadline: float) -> None:
    megabits = 8.0
    clients = [
        Candidate(
            f"{index:02}",
            download_mbps=megabits / download,
            upload_mbps=megabits / upload,
            round_s=download + update + upload,
        )
        for index, (download, update, upload) in enumerate(times)
    ]
    selector = FedCS(deadline_s=deadline, model_bytes=1_000_000, server_s=2.0)
    estimates = selector.times_of(Pool(tuple(clients), None, 1))
    assert np.allclose(np.transpose(times), [estimates.download, estimates.update, estimates.upload])
    named = {
        each.client: (float(d), float(ud), float(ul))
        for each, d, ud, ul in zip(
            clients, estimates.download, estimates.update, estimates.upload, strict=True
        )
    }
    found = select(clients, selector=selector, num=None, seed=0, round_number=1)

    assert set(found.chosen) == fedcs(named, deadline, 2.0)
    assert {refusal.code for refusal in found.refused.values()} <= {"too_slow"}


def test_fedcs_takes_no_more_than_are_wanted() -> None:
    found = select(candidates_of(30), selector=FedCS(deadline_s=1000.0), num=4, seed=0, round_number=1)

    fastest = sorted(candidates_of(30), key=lambda each: each.round_s or 0)[:4]
    assert found.chosen == tuple(sorted(each.client for each in fastest))
    assert {refusal.code for refusal in found.refused.values()} == {"not_chosen"}


def test_fedcs_with_a_line_for_each_takes_all_that_are_in_time() -> None:
    clients = candidates_of(50)
    deadline = sorted(each.round_s or 0 for each in clients)[20]
    found = chosen(FedCS(deadline_s=deadline, uploads="parallel"), clients, None)

    # In time is before the deadline, as in the paper.
    assert found == tuple(each.client for each in clients if (each.round_s or 0) < deadline)
    assert len(found) == 20


def test_fedcs_takes_new_clients_for_the_median() -> None:
    timed = [Candidate("a", round_s=10.0), Candidate("b", round_s=20.0), Candidate("c", round_s=90.0)]
    selector = FedCS(deadline_s=50.0, uploads="parallel")

    assert chosen(selector, [*timed, Candidate("new")], None) == ("a", "b", "new")
    assert chosen(selector, [Candidate("new"), Candidate("too")], None) == ("new", "too")


def test_fedcs_looks_at_a_share() -> None:
    assert len(chosen(FedCS(deadline_s=100.0, share=0.1), candidates_of(50), None)) == 5


# TiFL: algorithm 2


def tifl_weights(turns: list[tuple[int, float]], num_tiers: int, interval: int) -> list[int]:
    """NewProbs of algorithm 2 (not normalised), of the tier and its loss in each round, by replaying the rounds."""
    probs = [1] * num_tiers
    A: list[list[float | None]] = [[None] * num_tiers]  # after each round, the accuracy of each tier as known
    for tier, loss in turns:
        A.append([*A[-1]])
        A[-1][tier] = -loss
    for r in range(interval, len(turns) + 1):
        if r % interval:
            continue
        current = turns[r - 1][0]
        now, then = A[r][current], A[r - interval][current]
        if now is not None and then is not None and now <= then:
            order = sorted(range(num_tiers), key=lambda t: -math.inf if A[r][t] is None else A[r][t])
            probs = [num_tiers - order.index(t) for t in range(num_tiers)]
    return probs


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=20), st.integers(1, 4))
def test_tifl_changes_probabilities_as_algorithm_2_does(turns: list[tuple[int, int]], interval: int) -> None:
    known = [(tier, float(loss)) for tier, loss in turns]

    assert TiFL(tiers=3, interval=interval).weights(3, known) == tifl_weights(known, 3, interval)


def tiered(times: str = "aabbcc") -> list[Candidate]:
    return [Candidate(f"{name}{index}", round_s=10.0 * ord(name)) for index, name in enumerate(times)]


def test_tifl_asks_one_tier_and_each_equally_often_at_first() -> None:
    selector = TiFL(tiers=3)
    drawn = [chosen(selector, tiered(), 2, seed=seed) for seed in range(DRAWS)]

    assert {len({name[0] for name in names}) for names in drawn} == {1}
    counts = Counter(names[0][0] for names in drawn)
    assert [counts[tier] / DRAWS for tier in "abc"] == pytest.approx([1 / 3] * 3, abs=MOST)


def test_tifl_asks_worse_tiers_more_often() -> None:
    losses = {"a": 1.0, "b": 2.0, "c": 3.0}
    first = [
        PastRound(number, (f"{tier}x", f"{tier}{index}"), metrics={"loss": losses[tier]})
        for number, (tier, index) in enumerate([("c", 4), ("b", 2), ("a", 0), ("a", 0)], start=1)
    ]
    selector = TiFL(tiers=3, interval=1)
    counts = Counter(
        chosen(selector, tiered(), 1, seed=seed, number=5, past=tuple(first))[0][0] for seed in range(DRAWS)
    )

    assert [counts[tier] / DRAWS for tier in "abc"] == pytest.approx([1 / 6, 2 / 6, 3 / 6], abs=MOST)


def test_tifl_tiers_take_the_turns_that_they_have() -> None:
    past: list[PastRound] = []
    for number in range(1, 8):
        names = chosen(TiFL(tiers=3, credits=(4, 2, 1)), tiered(), 1, number=number, past=tuple(past))
        past.append(PastRound(number, names))

    assert Counter(each.chosen[0][0] for each in past) == {"a": 4, "b": 2, "c": 1}
    assert chosen(TiFL(tiers=3, credits=(4, 2, 1)), tiered(), 1, number=8, past=tuple(past))


def test_tifl_tiers_are_of_equal_size_and_leave_out_the_slowest() -> None:
    tier_of, refused = TiFL(tiers=5, max_round_s=50.0).tier_of(candidates_of(100))

    assert set(refused) == {each.client for each in candidates_of(100) if (each.round_s or 0) > 50}
    sizes = Counter(tier_of.values())
    assert max(sizes.values()) - min(sizes.values()) <= 1
    assert set(sizes) == {0, 1, 2, 3, 4}


def test_tifl_says_which_tier_was_asked() -> None:
    found = select(tiered(), selector=TiFL(tiers=3), num=1, seed=0, round_number=1)

    assert Counter(refusal.code for refusal in found.refused.values()) == {"other_tier": 4, "not_chosen": 1}


def test_tifl_may_find_everybody_too_slow() -> None:
    found = select(tiered(), selector=TiFL(max_round_s=1.0), num=1, seed=0, round_number=1)

    assert found.chosen == ()
    assert {refusal.code for refusal in found.refused.values()} == {"too_slow"}


@pytest.mark.parametrize("credits", [(1,), (0, 0, 0)])
def test_tifl_refuses_credits_that_make_no_turns(credits: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="credits"):
        TiFL(tiers=3, credits=credits)


# Those that need no paper


def test_weighted_is_a_draw_without_replacement_in_proportion_to_examples() -> None:
    p = {"a": Fraction(1, 8), "b": Fraction(2, 8), "c": Fraction(5, 8)}
    expected: Counter[str] = Counter()
    for first in p:
        for second in set(p) - {first}:
            expected[first] += p[first] * p[second] / (1 - p[first])
            expected[second] += p[first] * p[second] / (1 - p[first])
    clients = [Candidate(name, num_examples=int(8 * p[name])) for name in p]

    found = frequencies(Weighted(), clients, 2)
    assert found == pytest.approx({name: float(expected[name]) for name in p}, abs=MOST)


def test_weighted_takes_unknown_sizes_for_the_median_and_empty_clients_last() -> None:
    clients = [Candidate("a", num_examples=4), Candidate("new"), Candidate("none", num_examples=0)]
    # The median of 4 and 0 is 2.
    assert frequencies(Weighted(), clients, 1)["new"] == pytest.approx(1 / 3, abs=MOST)
    assert frequencies(Weighted(), clients, 2, draws=50)["none"] == 0
    assert len(chosen(Weighted(), clients, 3)) == 3


def test_round_robin_takes_everyone_in_turn() -> None:
    clients = candidates_of(7)
    past: list[PastRound] = []
    for number in range(1, 8):
        past.append(PastRound(number, chosen(RoundRobin(), clients, 3, number=number, past=tuple(past))))

    taken = [name for each in past for name in each.chosen]
    assert Counter(taken) == dict.fromkeys((each.client for each in clients), 3)
    assert past[2].chosen == ("c000000", "c000001", "c000006")
    assert past[3].chosen == ("c000002", "c000003", "c000004")


def test_round_robin_goes_on_when_clients_come_and_go() -> None:
    past = (PastRound(1, ("a", "b")), PastRound(2, ()))

    assert chosen(
        RoundRobin(), [Candidate("a"), Candidate("bb"), Candidate("c")], 1, number=3, past=past
    ) == ("bb",)
    assert chosen(RoundRobin(), [Candidate("a"), Candidate("b")], 1, number=3, past=past) == ("a",)


def test_least_recently_used_takes_those_that_waited_longest() -> None:
    waited = {"a": 1, "b": None, "c": 9, "d": 5, "e": None}
    clients = [Candidate(name, rounds_since_turn=rounds) for name, rounds in waited.items()]

    assert chosen(LeastRecentlyUsed(), clients, 3) == ("b", "c", "e")
    assert len({chosen(LeastRecentlyUsed(), clients, 1, seed=seed) for seed in range(20)}) == 2


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.data())
def test_stratified_shares_are_as_proportional_as_whole_numbers_can_be(
    sizes: list[int], data: st.DataObject
) -> None:
    num = data.draw(st.integers(1, sum(sizes)))
    clients = [
        Candidate(f"{group}-{index}", organisation=str(group))
        for group, size in enumerate(sizes)
        for index in range(size)
    ]
    found = Counter(name.split("-")[0] for name in chosen(Stratified(), clients, num))

    assert sum(found.values()) == num
    exact = [Fraction(size * num, sum(sizes)) for size in sizes]
    for group, share in enumerate(exact):
        assert math.floor(share) <= found[str(group)] <= math.ceil(share)
    # Largest remainders are those rounded up.
    up = [share % 1 for group, share in enumerate(exact) if found[str(group)] > share]
    down = [share % 1 for group, share in enumerate(exact) if found[str(group)] < share]
    assert not up or not down or min(up) >= max(down)


def test_stratified_by_tags_takes_the_first_that_fits() -> None:
    clients = [
        Candidate("a", tags=frozenset({"phone", "beta"})),
        Candidate("b", tags=frozenset({"phone"})),
        Candidate("c", tags=frozenset({"beta"})),
        Candidate("d"),
    ]
    selector = Stratified(by="tags", tags=("beta", "phone"))

    assert {chosen(selector, clients, 2, seed=seed) for seed in range(60)} >= {("a", "b"), ("c", "d")}
    assert len(chosen(selector, clients, 3)) == 3


@pytest.mark.parametrize("params", [{"by": "tags"}, {"tags": ("a",)}])
def test_stratified_by_tags_needs_tags_and_only_then(params: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="tags must name the groups"):
        Stratified(**params)


def test_round_robin_needs_only_the_last_rounds() -> None:
    clients = candidates_of(23)
    past: list[PastRound] = []
    for number in range(1, 60):
        num = 1 + number * 7 % 22
        names = chosen(RoundRobin(), clients, num, number=number, past=tuple(past))
        past.append(PastRound(number, names))
        assert names == chosen(RoundRobin(), clients, num, number=number, past=tuple(past[:-1][-20:]))
