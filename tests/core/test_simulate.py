"""A simulated experiment: laws of its rounds, deadlines and stragglers on the virtual clock, and what it shows."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fma_core import FMAError, Spec, simulate
from fma_core.aggregation.aggregators import Mean
from fma_core.aggregation.optimisers import optimisers
from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.codecs.safetensors import encode
from fma_core.errors import ShapeMismatch
from fma_core.in_memory import ArrayRounds, Update, fold_arrays
from fma_core.simulation import Progress, SimulatedClient, Trained, progress_bar
from fma_core.simulation.configuration import MEMBERS, Configuration

START = {"w": np.zeros(3)}


def client(name, *, seconds=1.0, value=None, drops=False, **facts):
    """A client that always sends the same, or nothing."""
    sent = float(len(name)) if value is None else value

    def train(weights, config, round_number):
        return None if drops else Trained({"w": np.full(3, sent)}, seconds=seconds, metrics={"v": sent})

    return SimulatedClient(name, train, **facts)


def team(*seconds, **options):
    return [
        client(f"c{index}", seconds=each, value=float(index), **options) for index, each in enumerate(seconds)
    ]


def run(configuration, clients, *, rounds=1, initial=START, **options):
    return simulate(
        {"aggregator": "mean", **configuration}, clients, rounds=rounds, initial=initial, **options
    )


def test_late_answers_close_a_round_that_finds_nobody_to_ask():
    configuration = {
        "selector": {"name": "random"},
        "round_policy": {"goal": 2, "over_selection": 2},
        "eligibility": [{"name": "min_rounds_between_turns", "rounds": 5}],
    }
    first, second = run(configuration, team(1, 2, 3, 4), rounds=2).rounds
    assert (first.outcome, first.answered) == ("published", ("c0", "c1"))
    assert (second.outcome, second.answered) == ("published", ("c2", "c3"))


def test_an_aggregate_is_the_fold_of_the_answers_in_their_order():
    found = run({"requirement": "all_clients"}, team(3, 1, 2)).rounds[0]
    assert found.answered == ("c1", "c2", "c0")
    sent = [Update({"w": np.full(3, value)}) for value in (1.0, 2.0, 0.0)]
    assert fold_arrays(Mean(), sent, START)["w"].tolist() == [1.0, 1.0, 1.0]
    assert found.metrics["v"] == pytest.approx(
        {"mean": 1, "min": 0, "max": 2, "p5": 0.1, "p50": 1, "p95": 1.9, "count": 3, "weight": 3}
    )
    assert (found.opened_s, found.ended_s) == (0, 3)


def test_a_state_is_kept_from_round_to_round():
    found = run({"requirement": "all_clients", "optimiser": {"name": "fedadam"}}, team(3, 1, 2), rounds=3)
    by_hand = ArrayRounds(Strategy(Mean(), optimiser=optimisers.build("fedadam")), START)
    for _ in range(3):
        expected = by_hand.play([{"w": np.full(3, value)} for value in (1.0, 2.0, 0.0)])
    assert found.arrays["w"].tobytes() == expected["w"].tobytes()
    assert found.sha256 == hashlib.sha256(encode(expected)).hexdigest()


CONFIGURATIONS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**53 - 1),
        "selector": st.sampled_from(
            [{"name": "everyone"}, {"name": "random"}, {"name": "poisson", "q": 0.6}]
        ),
        "round_policy": st.fixed_dictionaries(
            {"goal": st.integers(1, 4), "over_selection": st.sampled_from([1.0, 1.5, 3.0])},
            optional={
                "deadline_s": st.sampled_from([0.5, 2.0]),
                "late_updates": st.sampled_from(["refuse", "next_round"]),
                "max_reopenings": st.integers(0, 3),
                "on_failed_quorum": st.sampled_from(["reopen", "end"]),
            },
        ),
    },
    optional={"furthest_base_agg": st.integers(1, 2)},
)


@settings(max_examples=40, deadline=None)
@given(CONFIGURATIONS, st.lists(st.sampled_from([0.0, 0.3, 1.0, 5.0, None]), min_size=1, max_size=7))
def test_every_simulation_ends_and_its_rounds_add_up(configuration, seconds):
    clients = [
        client(f"c{index}", seconds=each or 0.0, drops=each is None) for index, each in enumerate(seconds)
    ]

    found = run(configuration, clients, rounds=4)
    again = run(configuration, clients[::-1], rounds=4)

    assert found.to_json() == again.to_json()
    assert found.end_reason in ("rounds", "stalled", "quorum_not_met")
    assert [each.number for each in found.rounds] == list(range(1, len(found.rounds) + 1))
    clock = 0.0
    for each in found.rounds:
        assert each.opened_s == clock <= each.ended_s
        clock = each.ended_s
        assert (each.outcome == "published") == bool(each.sha256)
        assert len(set(each.answered)) == len(each.answered)
        assert set(each.stale) <= set(each.answered)
        for group in (each.answered, each.late, each.dropped):
            assert set(group) <= {client.id for client in clients}
        assert not set(each.answered) & set(each.dropped)
        if each.outcome == "published":
            assert len(each.answered) >= configuration["round_policy"]["goal"] or each.ended_s > each.opened_s
    json.dumps(found.to_json(), allow_nan=False)


def test_over_selection_closes_at_the_goal_and_the_slowest_are_late():
    policy = {"goal": 2, "over_selection": 2.0}
    found = run({"selector": {"name": "random"}, "round_policy": policy}, team(4, 3, 2, 1)).rounds[0]
    assert (found.chosen, found.answered, found.late) == (
        ("c0", "c1", "c2", "c3"),
        ("c3", "c2"),
        ("c0", "c1"),
    )
    assert found.ended_s == 2


def test_equal_times_do_not_always_leave_out_the_same():
    clients = team(*[1.0] * 4)
    policy = {"goal": 2, "over_selection": 2.0, "late_updates": "refuse"}
    found = run({"selector": {"name": "random"}, "round_policy": policy}, clients, rounds=30)
    answered = Counter(name for each in found.rounds for name in each.answered)
    assert min(answered[each.id] for each in clients) >= 5


def test_a_deadline_closes_a_round_with_a_quorum():
    policy = {"goal": 3, "deadline_s": 10, "quorum": 2}
    found = run({"round_policy": policy}, team(1, 10, 99)).rounds[0]
    # What comes at the very moment of the deadline is in time.
    assert (found.outcome, found.answered, found.late, found.ended_s) == (
        "published",
        ("c0", "c1"),
        ("c2",),
        10,
    )


def test_a_round_without_a_quorum_is_opened_again_or_ends():
    policy = {"goal": 3, "deadline_s": 10, "quorum": 3}
    patient = run({"round_policy": policy}, team(1, 2, 25)).rounds[0]
    assert (patient.outcome, patient.num_reopenings, patient.ended_s) == ("published", 2, 25)
    strict = run({"round_policy": {**policy, "on_failed_quorum": "end"}}, team(1, 2, 25), rounds=9)
    assert (strict.end_reason, strict.rounds[-1].outcome, strict.seconds) == (
        "quorum_not_met",
        "quorum_not_met",
        10,
    )
    bounded = run({"round_policy": {**policy, "max_reopenings": 1}}, team(1, 2, 25), rounds=9)
    assert (bounded.end_reason, bounded.seconds) == ("quorum_not_met", 20)


def test_a_round_that_is_opened_again_asks_more_clients():
    names = [f"c{index}" for index in range(8)]
    clients = [client(name, drops=index % 2 == 0) for index, name in enumerate(names)]
    policy = {"goal": 3, "over_selection": 1.0, "deadline_s": 5, "quorum": 3}
    found = run({"selector": {"name": "random"}, "round_policy": policy, "seed": 1}, clients).rounds[0]
    assert found.outcome == "published"
    assert found.num_reopenings >= 1
    assert len(found.chosen) > 3


def test_late_updates_count_for_the_next_round_with_their_age_unless_they_are_refused():
    configuration = {"requirement": "require_x_updates", "requirement_args": [2]}
    counted = run(configuration, team(1, 1, 1.5), rounds=2).rounds[1]
    assert counted.stale == ("c2",)
    refused = run({**configuration, "round_policy": {"late_updates": "refuse"}}, team(1, 1, 1.5), rounds=5)
    # It was trained from the weights that were given, which is no excuse.
    assert refused.rounds[1].rejected["c2"].code == "late_update"


def test_a_client_that_is_busy_begins_when_it_has_finished():
    configuration = {"requirement": "require_x_updates", "requirement_args": [2], "furthest_base_agg": 1}
    found = run(configuration, [client("fast", seconds=2), client("slow", seconds=3)], rounds=2)
    assert [each.answered for each in found.rounds] == [("fast", "slow"), ("fast", "slow")]
    third = run(configuration, team(1, 1, 1.5), rounds=2).rounds[1]
    # It is too old at 1.5, and what it begins then would be ready at 3.
    assert (third.rejected["c2"].code, third.late) == ("too_old", ("c2",))


def test_eligibility_that_time_heals_is_waited_for():
    eligibility = [{"name": "min_seconds_between_turns", "seconds": 60}]
    found = run({"eligibility": eligibility, "round_policy": {"goal": 1}}, team(1.0), rounds=3)
    assert [each.opened_s for each in found.rounds] == [0, 1, 61]
    assert found.seconds == 121


def test_facts_are_what_filters_look_at():
    clients = [
        client("a", facts={"battery": 0.9}),
        client("bb", facts=lambda number: {"battery": number / 10}),
    ]
    eligibility = [{"name": "tags", "none_of": ["x"]}]
    found = run(
        {"eligibility": eligibility, "requirement": "all_clients"}, [*clients, client("c", tags=["x"])]
    )
    assert found.rounds[0].chosen == ("a", "bb")
    assert {name: why.code for name, why in found.rounds[0].refused.items()} == {"c": "tags"}
    with pytest.raises(ValueError, match="batery are unknown; known are battery"):
        client("a", facts={"batery": 1})


def test_clients_are_told_their_configuration():
    told = []

    def train(weights, config, round_number):
        told.append((round_number, config, weights["w"].tolist()))
        return Trained({"w": weights["w"] + 1})

    configuration = {
        "aggregator": "fedprox",
        "client_config": {
            "rate": {"$schedule": {"name": "linear", "initial": 1, "final": 0, "num_rounds": 3}}
        },
        "client_config_overrides": [{"tags": ["slow"], "rounds": [2, None], "set": {"mu": 0.5}}],
    }
    run(configuration, [SimulatedClient("a", train, tags=["slow"])], rounds=2)
    assert told == [(1, {"rate": 1.0, "mu": 0.01}, [0.0] * 3), (2, {"rate": 0.5, "mu": 0.5}, [1.0] * 3)]


def test_weights_that_clients_are_given_cannot_be_changed():
    def train(weights, config, round_number):
        weights["w"] += 1

    with pytest.raises(ValueError, match="read-only") as raised:
        run({}, [SimulatedClient("a", train)])
    assert "while client 'a' trained for round 1" in raised.value.__notes__


def test_without_initial_weights_the_first_updates_make_the_model():
    found = run({"requirement": "all_clients"}, team(1, 1), initial=None, rounds=2)
    assert found.arrays["w"].tolist() == [0.5] * 3
    with pytest.raises(FMAError, match="give `initial`"):
        run({"optimiser": {"name": "sgd"}}, team(1), initial=None)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (Trained({"w": np.zeros(4)}), "shape_mismatch"),
        (Trained({"w": np.full(3, np.nan)}), "non_finite_value"),
        (Trained({"v": np.zeros(3)}), "unexpected_array"),
    ],
    ids=["shape", "nan", "name"],
)
def test_what_the_server_would_refuse_is_refused(sent, code):
    clients = [client("good"), SimulatedClient("bad", lambda weights, config, number: sent)]
    found = run({"requirement": "all_clients"}, clients)
    assert (found.end_reason, found.rounds[0].outcome) == ("stalled", "open")
    assert found.rounds[0].rejected["bad"].code in (code, "missing_array")
    assert "1 were refused" in found.waits_for


def test_a_metric_that_the_rule_needs_is_asked_for():
    found = run({"aggregator": "qfedavg"}, [client("a")])
    assert "loss" in found.rounds[0].rejected["a"].detail


def test_a_fold_that_fails_ends_its_round_and_the_next_begins():
    clients = [client("a", value=1.7e308), client("b", value=1.7e308)]
    configuration = {"requirement": "all_clients", "optimiser": {"name": "sgd", "learning_rate": 1e10}}
    found = run(configuration, clients, rounds=2)
    assert [each.outcome for each in found.rounds] == ["failed", "failed"]
    assert found.rounds[0].failure.code == "non_finite_result"
    assert found.arrays["w"].tolist() == [0.0] * 3


def grows(weights, config, round_number):
    return Trained({"w": weights["w"] + 1}, metrics={"loss": 1 / round_number}, seconds=86_400)


@pytest.mark.parametrize(
    ("policy", "reason", "num_rounds"),
    [
        ({"num_rounds": 3}, "num_rounds", 3),
        ({"metric": "loss", "metric_better": "lower", "target": 0.25}, "target_metric", 4),
        ({"metric": "size", "metric_source": "validation", "target": 2}, "target_metric", 2),
        ({"metric": "constant", "metric_source": "validation", "patience": 2}, "no_improvement", 3),
        ({"end_date": "2026-01-04T00:00:00Z"}, "end_date", 3),
        ({}, "rounds", 6),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_experiment_ends_as_its_policy_says(policy, reason, num_rounds):
    found = run(
        {"round_policy": policy},
        [SimulatedClient("a", grows)],
        rounds=6,
        evaluate=lambda weights: {"size": weights["w"][0], "constant": 1.0},
        begins_on=datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert (found.end_reason, len(found.rounds)) == (reason, num_rounds)


def test_too_few_clients_stall_with_a_reason():
    found = run({"round_policy": {"goal": 3}}, team(1, 1))
    assert (found.end_reason, found.waits_for) == ("stalled", "clients to register: 2 of 3")
    tagged = run({"eligibility": [{"name": "tags", "any_of": ["x"]}]}, team(1, 1))
    assert tagged.waits_for == "clients that may be asked: 0 of 1"


def test_organisations_must_answer():
    seconds = {"a1": 1, "a2": 1, "b1": 2, "b2": 2}
    clients = [client(name, organisation=name[0], seconds=each) for name, each in seconds.items()]
    policy = {"goal": 2, "quorum_organisations": 2}
    found = run({"round_policy": policy}, clients).rounds[0]
    assert (set(found.answered) >= {"a1", "a2"}, len(found.answered), found.ended_s) == (True, 3, 2)


def test_a_full_round_takes_the_organisation_that_it_waits_for():
    clients = [
        client("a1", organisation="a"),
        client("a2", organisation="a"),
        client("b1", organisation="b", seconds=2),
    ]
    policy = {"goal": 2, "max_updates": 2, "quorum_organisations": 2, "num_rounds": 1}
    found = run({"round_policy": policy}, clients)
    assert (found.end_reason, len(found.rounds[0].answered)) == ("num_rounds", 3)


@pytest.mark.parametrize(
    ("policy", "reason"), [({}, "stalled"), ({"deadline_s": 9, "on_failed_quorum": "end"}, "quorum_not_met")]
)
def test_a_round_waits_for_a_client_that_the_rule_cannot_do_without(policy, reason):
    configuration = {"aggregator": "fltrust", "aggregator_params": {"root_client": "root"}}
    found = run({**configuration, "round_policy": policy}, [*team(1, 1, 1), client("root", drops=True)])
    assert (found.end_reason, len(found.rounds[0].answered)) == (reason, 3)


def test_a_round_that_nobody_ever_answers_does_not_go_on_for_ever():
    found = run({"round_policy": {"goal": 1, "deadline_s": 1}}, [client("gone", drops=True)])
    assert (found.end_reason, found.rounds[0].num_reopenings) == ("stalled", 1000)


def test_a_spec_is_that_of_the_weights():
    spec = Spec.of({"w": np.zeros(4)}).to_json()
    with pytest.raises(ShapeMismatch):
        run({"spec": spec}, team(1))
    found = run({"spec": spec}, team(1), initial=None)
    assert found.rounds[0].rejected["c0"].code == "shape_mismatch"


@pytest.mark.parametrize(
    ("configuration", "field"),
    [
        ({"aggregator": "meen"}, "aggregator"),
        ({"aggregator": "krum", "aggregator_params": {"f": "x"}}, "aggregator"),
        ({"optimizer": {"name": "sgd"}}, "optimizer"),
        ({"optimiser": {"name": "sgdd"}}, "optimiser"),
        ({"requirement": "most"}, "requirement"),
        ({"selector": {"name": "rando"}}, "selector"),
        ({"eligibility": [{"name": "tags"}]}, "eligibility"),
        ({"seed": -1}, "seed"),
        ({"furthest_base_agg": 0}, "furthest_base_agg"),
        ({"client_config": {"a": {"$schedule": {"name": "x"}}}}, "client_config"),
        ({"client_config_overrides": [{}]}, "client_config_overrides"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_configuration_that_the_server_refuses_is_refused(configuration, field):
    with pytest.raises(FMAError) as raised:
        run(configuration, team(1))
    assert raised.value.facts["field"] == field


@pytest.mark.parametrize("name", MEMBERS)
def test_every_member_is_read(name):
    known = {"aggregator": "mean", "requirement": "require_x_updates", "requirement_args": [2]}
    Configuration.of(known)
    with pytest.raises(FMAError):
        Configuration.of({**known, name: "no such"})


def test_members_that_are_no_part_of_rounds_are_ignored_and_null_is_the_default():
    found = run({"name": "x", "allow_aggregation": False, "selector": None, "stages": None}, team(1))
    assert found.end_reason == "rounds"


@pytest.mark.parametrize(
    ("mistake", "what"),
    [
        (lambda: run({}, team(1), rounds=0), "at least 1"),
        (lambda: run({}, [client("a"), client("b"), client("a")]), "two clients have the id 'a'"),
        (lambda: SimulatedClient("", print), "must be a string"),
        (lambda: SimulatedClient("a", print, tags="phone"), "several strings"),
        (lambda: Trained(START, num_examples=0), "num_examples"),
        (lambda: Trained(START, seconds=-1), "seconds"),
        (lambda: Trained(START, seconds=float("nan")), "seconds"),
    ],
    ids=["rounds", "twice", "id", "tags", "examples", "seconds", "nan"],
)
def test_mistakes_are_told(mistake, what):
    with pytest.raises(ValueError, match=what):
        mistake()


def test_what_train_gives_is_checked():
    with pytest.raises(TypeError, match="must return Trained or None"):
        run({}, [SimulatedClient("a", lambda weights, config, number: weights)])


def test_numpys_numbers_are_taken_for_numbers():
    trained = Trained(START, np.int64(3), {"a": np.float32(0.5), "b": [np.int8(1), {"c": np.array(2.0)}]})
    assert (trained.num_examples, dict(trained.metrics)) == (3, {"a": 0.5, "b": [1, {"c": 2.0}]})


def test_an_executor_changes_nothing():
    configuration = {"selector": {"name": "random"}, "round_policy": {"goal": 20}}
    clients = team(*np.random.default_rng(1).random(40))
    alone = run(configuration, clients, rounds=3, seed=4)
    with ThreadPoolExecutor(3) as pool:
        together = run(configuration, clients, rounds=3, seed=4, executor=pool)
    assert alone.to_json() == together.to_json()


def test_an_error_of_a_client_is_raised_through_an_executor():
    def train(weights, config, round_number):
        raise RuntimeError("no data")

    clients = [SimulatedClient(f"c{index}", train) for index in range(40)]
    with ThreadPoolExecutor(2) as pool, pytest.raises(RuntimeError, match="no data") as raised:
        run({}, clients, executor=pool)
    assert raised.value.__notes__ == ["while client 'c0' trained for round 1"]


def test_the_table_has_a_line_for_each_round():
    clients = [*team(1, 2), client("gone", drops=True)]
    policy = {"goal": 2, "deadline_s": 5}
    found = run({"round_policy": policy}, clients, rounds=2, evaluate=lambda weights: {"accuracy": 0.25})
    heads, first, second = (line.split() for line in found.table().splitlines())
    assert heads == [
        "round",
        "asked",
        "answered",
        "late",
        "dropped",
        "refused",
        "seconds",
        "sha256",
        "v",
        "accuracy",
    ]
    assert first[:7] == ["1", "3", "2", "0", "1", "0", "2.0"]
    assert first[7] == found.rounds[0].sha256[:12]
    assert (second[0], second[-1]) == ("2", "0.2500")
    assert found.curve("accuracy") == [(1, 0.25), (2, 0.25)]
    assert found.curve("v") == [(1, 0.5), (2, 0.5)]
    assert found.curve("other") == []


def test_a_stalled_simulation_can_be_shown():
    found = run({"requirement": "all_clients"}, [client("gone", drops=True)])
    assert "open" in found.table()
    assert found.sha256 == ""
    with pytest.raises(ValueError, match="nothing to draw of no metrics; known are none"):
        found.plot("never.png")


def test_metrics_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    found = run({}, team(1, 2), rounds=3, evaluate=lambda weights: {"accuracy": 0.25})
    assert found.plot(tmp_path / "new" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in found.plot(tmp_path / "v.svg", metrics=["v"]).read_bytes()
    with pytest.raises(ValueError, match="loss"):
        found.plot(tmp_path / "x.png", metrics=["loss"])


def test_without_matplotlib_a_plot_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        run({}, team(1)).plot("never.png")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("out", [io.StringIO, Terminal])
def test_progress_is_told_and_drawn(out):
    told, shown = [], out()
    bar = progress_bar(shown)

    def watch(progress):
        told.append(progress)
        bar(progress)

    run({"requirement": "all_clients"}, team(1, 1), rounds=2, progress=watch)
    shares = [progress.share for progress in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert told[-1] == Progress(2, 2, 2, 2, is_over=True, metrics={"v": 0.5})
    printed = shown.getvalue()
    assert "round 2/2  clients 2/2  v 0.5" in printed
    assert printed.count("\n") == (1 if out is Terminal else 2)
    assert ("[" + "#" * 24 + "]" in printed) == (out is Terminal)


@pytest.mark.parametrize(
    "configuration",
    [
        {"requirement": "require_x_updates", "requirement_args": [0]},
        {"round_policy": {"goal": 0}, "selector": {"name": "random"}},
        {
            "round_policy": {"goal": 0, "quorum_organisations": 2, "deadline_s": 60},
            "selector": {"name": "random"},
        },
    ],
)
def test_the_work_grows_with_the_answers_and_not_with_their_square(configuration):
    def num_calls(num_clients: int) -> int:
        policy = {**configuration.get("round_policy", {}), "goal": num_clients}
        clients = [
            SimulatedClient(
                f"c{i:04}", lambda *_: Trained({"w": np.zeros(1)}, seconds=1.0), organisation=f"{i % 3}"
            )
            for i in range(num_clients)
        ]
        changed = (
            {"round_policy": policy}
            if "round_policy" in configuration
            else {"requirement_args": [num_clients]}
        )
        count = 0

        def called(frame: Any, event: str, _: Any) -> None:
            nonlocal count
            count += event == "call" and ("/simulation/" in frame.f_code.co_filename)

        sys.setprofile(called)
        try:
            found = simulate({**configuration, **changed}, clients, rounds=1)
        finally:
            sys.setprofile(None)
        assert len(found.rounds[0].answered) == num_clients
        return count

    num_calls(8)  # imports
    assert num_calls(240) < 3.5 * num_calls(80)
