"""Strategies: which parts go together, what of a model is sent and kept, and how a strategy is stored."""

import json
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest

from fma_core.aggregation.aggregators import Aggregator, FedBuff, FedDyn, Mean, Scaffold, aggregators
from fma_core.aggregation.optimisers import FedAdam, optimisers
from fma_core.aggregation.stages import Exclude, Only, RowMap, RowStage, stages
from fma_core.aggregation.staleness import Polynomial, stalenesses
from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.spec import Spec
from fma_core.errors import InvalidParameter, InvalidSpec, InvalidStrategy, UnknownPart
from tests.core.rounds import Rounds

# What parts cannot do without.
NEEDED = {
    "fltrust": {"root_client": "a"},
    "clip_norm": {"max_norm": 1.0},
    "only": {"patterns": ["w*"]},
    "exclude": {"patterns": ["bn*"]},
    **{name: {"f": 1} for name in ("krum", "multi_krum", "bulyan", "nnm")},
}


def build(registry, name):
    return registry.build(name, NEEDED.get(name))


@dataclass(frozen=True)
class Clip(RowStage):
    mixes = False

    def map_rows(self, rows):
        return RowMap(np.eye(rows.num_rows), rows.num_examples)


@dataclass(frozen=True)
class Mix(Clip):
    mixes = True


@dataclass(frozen=True)
class Loner(Aggregator[None]):
    """Takes nothing beside it."""

    update_kinds = ("weights",)
    takes_optimiser = False
    takes_clipped_rows = False
    takes_mixed_rows = False

    def combine(self, block, decision):
        return block.row(0)


@pytest.mark.parametrize(
    ("options", "field", "sentence"),
    [
        ({"update_kind": "delta"}, "update_kind", "Loner needs the weights themselves"),
        ({"update_kind": "gradients"}, "update_kind", "must be one of weights, delta; found 'gradients'"),
        ({"optimiser": FedAdam()}, "optimiser", "Loner takes the whole step itself"),
        ({"staleness": Polynomial()}, "staleness", "Loner gives every update its own weight"),
        ({"stages": (Clip(),)}, "stages", "Loner needs the rows as they were sent; Clip would change them"),
        ({"stages": (Exclude(("a",)), Mix())}, "stages", "Mix would change them"),
    ],
)
def test_what_cannot_go_together_is_refused_and_named(options, field, sentence):
    with pytest.raises(InvalidStrategy, match=sentence) as raised:
        Strategy(Loner(), **options)
    assert raised.value.facts == {"field": field}


def test_rows_that_are_mixed_are_nobodys(tmp_path):
    with pytest.raises(
        InvalidStrategy, match="fedbuff must know whose each row is; Mix mixes them"
    ) as raised:
        Strategy(FedBuff(), stages=(Clip(), Mix()))
    assert raised.value.facts == {"field": "stages"}


def test_rows_that_are_mixed_have_no_age():
    with pytest.raises(InvalidStrategy, match="Mix mixes updates of different ages") as raised:
        Strategy(Mean(), stages=(Mix(),), staleness=Polynomial())
    assert raised.value.facts == {"field": "staleness"}
    Strategy(Mean(), stages=(Clip(),), staleness=Polynomial())


@pytest.mark.parametrize("name", aggregators.names())
def test_every_pair_is_taken_or_refused_as_the_rule_says(name):
    rule = build(aggregators, name)
    pairs = [
        *(("update_kind", kind, kind in rule.update_kinds) for kind in ("weights", "delta")),
        *(("optimiser", build(optimisers, part), rule.takes_optimiser) for part in optimisers.names()),
        *(("staleness", build(stalenesses, part), rule.takes_staleness) for part in stalenesses.names()),
    ]
    for part in stages.names():
        stage = build(stages, part)
        goes = not isinstance(stage, RowStage) or (
            rule.takes_clipped_rows and (rule.takes_mixed_rows or not stage.mixes)
        )
        pairs.append(("stages", (stage,), goes))
    for field, part, goes in pairs:
        if goes:
            Strategy(rule, **{field: part})
            continue
        with pytest.raises(InvalidStrategy) as raised:
            Strategy(rule, **{field: part})
        assert raised.value.facts["field"] == field


@pytest.mark.parametrize("name", aggregators.names())
def test_what_belongs_to_single_updates_never_meets_mixed_rows(name):
    rule = build(aggregators, name)
    if rule.required_metrics or rule.payloads or rule.required_clients:
        assert not rule.takes_mixed_rows
    if rule.payloads:
        assert not rule.takes_clipped_rows


@pytest.mark.parametrize("name", aggregators.names())
def test_every_rule_says_where_it_comes_from(name):
    described = aggregators.describe(name)
    assert described.source
    assert described.minimum
    assert described.description


def test_a_strategy_comes_back_from_json():
    rules = [build(aggregators, name) for name in aggregators.names()]
    kept = 0
    for rule, stage, optimiser, staleness, kind in product(
        rules,
        [None, *stages.names()],
        [None, *optimisers.names()],
        [None, *stalenesses.names()],
        ("weights", "delta"),
    ):
        try:
            strategy = Strategy(
                rule,
                stages=() if stage is None else (build(stages, stage), Exclude(("a*", "b?"))),
                optimiser=None if optimiser is None else optimisers.build(optimiser),
                staleness=None if staleness is None else stalenesses.build(staleness),
                update_kind=kind,
            )
        except InvalidStrategy:
            continue
        assert Strategy.from_json(json.loads(json.dumps(strategy.to_json()))) == strategy
        kept += 1
    assert kept > 500


def test_how_a_strategy_is_stored():
    strategy = Strategy.build(
        Mean(),
        stages=[{"name": "exclude", "patterns": ["bn.*"]}],
        optimiser={"name": "sgd"},
        update_kind="delta",
    )
    assert strategy.to_json() == {
        "aggregator": {"name": "mean"},
        "stages": [{"name": "exclude", "patterns": ("bn.*",)}],
        "optimiser": {"name": "sgd", "learning_rate": 1.0},
        "staleness": None,
        "update_kind": "delta",
        "array_policies": {},
    }


@pytest.mark.parametrize(
    ("change", "error", "field"),
    [
        ({"aggregator": {"name": "meen"}}, UnknownPart, "aggregator"),
        ({"aggregator": {"name": "fedprox", "mu": "a"}}, InvalidParameter, "aggregator"),
        ({"stages": [{"name": "only", "patterns": []}]}, InvalidParameter, "stages"),
        ({"stages": [{"name": "only"}]}, InvalidParameter, "stages"),
        ({"optimiser": {"name": "fedadam", "beta3": 1}}, InvalidParameter, "optimiser"),
        ({"staleness": {"name": "polynomial", "a": -1}}, InvalidParameter, "staleness"),
        ({"update_kind": "sum"}, InvalidStrategy, "update_kind"),
    ],
)
def test_what_is_wrong_in_json_is_named(change, error, field):
    with pytest.raises(error) as raised:
        Strategy.from_json({**Strategy(Mean()).to_json(), **change})
    assert raised.value.facts["field"] == field


MODEL = Spec.of(
    {
        "bn.count": np.array(1),
        "bn.mean": np.ones(3, np.float16),
        "w.1": np.ones((2, 3), np.float32),
        "w.2": np.ones(2),
        "w.n": np.ones(4, np.int8),
    }
)


@pytest.mark.parametrize(
    ("chosen", "sent"),
    [
        ((), ("bn.count", "bn.mean", "w.1", "w.2", "w.n")),
        ((Exclude(("bn.*",)),), ("w.1", "w.2", "w.n")),
        ((Exclude(("bn.*", "*.n")),), ("w.1", "w.2")),
        ((Only(("w.?",)),), ("w.1", "w.2", "w.n")),
        ((Only(("w.?",)), Exclude(("w.2",))), ("w.1", "w.n")),
        ((Exclude(("BN.*",)),), ("bn.count", "bn.mean", "w.1", "w.2", "w.n")),
    ],
)
def test_clients_send_what_is_not_personal(chosen, sent):
    strategy = Strategy(Mean(), stages=chosen)
    assert strategy.update_spec(MODEL).names == sent
    assert {name for name, role in strategy.roles(MODEL).items() if role == "kept"} == set(MODEL.names) - set(
        sent
    )


@pytest.mark.parametrize("chosen", [(Exclude(("*",)),), (Only(("x",)),), (Only(("w*",)), Only(("bn*",)))])
def test_something_must_be_sent(chosen):
    with pytest.raises(InvalidStrategy, match="no array of the model's spec would be sent") as raised:
        Strategy(Mean(), stages=chosen).update_spec(MODEL)
    assert raised.value.facts == {"field": "stages"}


def test_what_is_kept_belongs_to_shared_floats_and_is_float64():
    strategy = Strategy(Scaffold(), optimiser=FedAdam(), stages=(Exclude(("bn.*",)),))
    found = strategy.state_spec(MODEL)
    assert found.names == (
        "aggregator.c/w.1",
        "aggregator.c/w.2",
        "num_steps",
        "optimiser.m/w.1",
        "optimiser.m/w.2",
        "optimiser.v/w.1",
        "optimiser.v/w.2",
    )
    assert all(array.dtype == "float64" for array in found.arrays if array.name != "num_steps")
    assert found.by_name["optimiser.v/w.1"].shape == (2, 3)


@pytest.mark.parametrize(
    ("strategy", "spec"),
    [
        (Strategy(Mean()), MODEL),
        (Strategy(Scaffold()), Spec.of({"n": np.arange(3)})),
        (Strategy(FedDyn(), stages=(Only(("w.n",)),)), MODEL),
    ],
)
def test_nothing_is_kept_where_there_is_nothing_to_keep(strategy, spec):
    assert strategy.state_spec(spec) is None


def test_a_model_whose_names_collide_with_payloads_is_refused():
    spec = Spec.of({"w": np.ones(1), "control/w": np.ones(1)})
    with pytest.raises(InvalidSpec, match="'control/w' is named twice"):
        Strategy(Scaffold()).update_spec(spec)


@pytest.mark.parametrize(
    ("strategy", "needs"),
    [
        (Strategy(Mean()), False),
        (Strategy(Mean(), update_kind="delta"), True),
        (Strategy(Mean(), optimiser=FedAdam()), True),
        (Strategy(Mean(), stages=(Exclude(("a",)),)), True),
        (Strategy(FedBuff()), True),
        (Strategy(FedDyn()), True),
        (Strategy(Scaffold()), True),
    ],
)
def test_what_needs_a_model_to_start_from(strategy, needs):
    assert strategy.needs_start == needs


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_changes_are_added_to_the_model_and_integers_are_values(dtype, tmp_path):
    start = {"w": np.array([1, 2], dtype), "n": np.array([10, 20]), "t": np.array([True, False])}
    rounds = Rounds(tmp_path, Strategy(Mean(), update_kind="delta"), start)
    sent = [
        {"w": np.array(change, dtype), "n": np.array(n), "t": np.array([False, True])}
        for change, n in [([1, 0], [1, 2]), ([-2, 4], [3, 5])]
    ]
    found = rounds.play(sent, num_examples=[1, 3])
    assert found["w"].dtype == dtype
    assert found["w"].tolist() == [1 - 1.25, 2 + 3]
    assert found["n"].tolist() == [2, 4]  # 2.5 to even, 4.25
    assert found["t"].tolist() == [False, True]


@pytest.mark.parametrize("kind", ["weights", "delta"])
def test_personal_integers_stay_too(kind, tmp_path):
    start = {
        "w": np.zeros(2),
        "seen": np.array([5, -7]),
        "on": np.array(True),
        "bn": np.array([-0.0, 1e-320]),
    }
    strategy = Strategy(Mean(), stages=(Only(("w",)),), update_kind=kind)
    rounds = Rounds(tmp_path, strategy, start)
    assert strategy.update_spec(rounds.spec).names == ("w",)
    found = rounds.play([{"w": np.ones(2)}] * 2)
    assert found["w"].tolist() == [1, 1]
    assert all(found[name].tobytes() == start[name].tobytes() for name in ("seen", "on", "bn"))


@pytest.mark.parametrize("name", ["median", "krum", "scaffold", "fedbuff", "avg_values_if_data"])
def test_rules_that_do_not_look_at_examples_need_none(name, tmp_path):
    rounds = Rounds(tmp_path, Strategy(build(aggregators, name)), {"w": np.zeros(2), "n": np.arange(2)})
    extra = {"control/w": np.zeros(2)} if name == "scaffold" else {}
    sent = [{"w": np.full(2, float(value)), "n": np.arange(2), **extra} for value in (4, 1, 2, 3, 5, 6, 7)]
    found = rounds.play(sent, num_examples=[0] * 7)
    assert found["w"].tolist() == [4, 4]
    assert found["n"].tolist() == [0, 1]
