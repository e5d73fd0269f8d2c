"""`simulate` asks the clients that the server asks, and its aggregates have the digests of the server's."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest
from django.utils import timezone

from fma_core.arrays.codecs.safetensors import encode
from fma_core.arrays.spec import Arrays
from fma_core.simulation import SimulatedClient, SimulatedRound, Simulation, Trained, simulate
from fma_django.clients.joining import join
from fma_django.errors import LateUpdate
from fma_django.experiments import lifecycle
from fma_django.experiments.changes import create_federated_model
from fma_django.models import Client, FederatedModel, ModelAggregate, Round, Tag
from fma_django.models.model_update import UpdateStatus
from fma_django.models.round import RoundState
from fma_django.record.weights import SafetensorsBody
from fma_django.rounds.aggregation import aggregate_round
from fma_django.rounds.deadlines import fire_deadlines
from fma_django.updates.facts import INITIAL as NO_AGGREGATE
from fma_django.updates.intake import UpdateFacts
from tests.django.stored import weights_of
from tests.records import make_user, send_body

pytestmark = [pytest.mark.django_db, pytest.mark.untraced]

NUM_CLIENTS = 12
NUM_ROUNDS = 3
IDS = [str(uuid.UUID(int=7919 * (number + 1))) for number in range(NUM_CLIENTS)]
INITIAL = {
    "b": np.linspace(-1, 1, 4, dtype=np.float32),
    "norm.running_var": np.linspace(1, 2, 4, dtype=np.float32),
    "steps": np.array(3),
    "w": np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4),
}
RANDOM = {"selector": {"name": "random"}, "round_policy": {"goal": 5}}
ALL = {"requirement": "all_clients"}
ROBUST = {"aggregator": "multi_krum", "aggregator_params": {"f": 1, "m": 3}}
ADAM = {"name": "fedadam", "learning_rate": 0.1}
RATE = {"$schedule": {"name": "exponential", "initial": 0.5, "factor": 0.7}}
TOLD = {
    "client_config": {"learning_rate": RATE},
    "client_config_overrides": [
        {"tags": ["even"], "set": {"learning_rate": 0.25}},
        {"rounds": [2, 3], "clients": IDS[:3], "set": {"learning_rate": 0.125}},
    ],
}

CASES: Mapping[str, Mapping[str, Any]] = {
    "mean of all": {**ALL},
    "mean of some": {**RANDOM},
    "fedadam of all": {**ALL, "optimiser": ADAM},
    "fedadam of some": {**RANDOM, "optimiser": ADAM, "seed": 2**53 - 1},
    "krum of all": {**ALL, "aggregator": "krum", "aggregator_params": {"f": 2}},
    "krum of some": {**RANDOM, "aggregator": "krum", "aggregator_params": {"f": 1}},
    "clipped multi_krum of all": {
        **ALL,
        "aggregator": "multi_krum",
        "aggregator_params": {"f": 2, "m": 4},
        "stages": [{"name": "clip_norm", "max_norm": 4.0}],
    },
    "clipped median of deltas": {
        **RANDOM,
        "update_kind": "delta",
        "aggregator": "median",
        "stages": [{"name": "bucketing", "size": 2}, {"name": "exclude", "patterns": ["b"]}],
    },
    "fedprox by tag": {
        "aggregator": "fedprox",
        "selector": {"name": "random"},
        "eligibility": [{"name": "tags", "any_of": ["even"]}],
        "round_policy": {"goal": 3, "over_selection": 1.0},
    },
    "least recently used": {"selector": {"name": "least_recently_used"}, "round_policy": {"goal": 4}},
    "round robin": {"selector": {"name": "round_robin"}, "round_policy": {"goal": 5}},
    "by loss": {
        "selector": {"name": "power_of_choice", "d": 8},
        "round_policy": {"goal": 3, "over_selection": 1.0},
    },
    # With alpha the seconds of a client would count, which are real ones on a server.
    "by utility": {
        "selector": {"name": "oort", "alpha": 0.0, "epsilon": 0.5},
        "round_policy": {"goal": 4, "over_selection": 1.0},
    },
    "by utility, late ones too": {
        "selector": {"name": "oort", "alpha": 0.0, "epsilon": 0.5, "pacer_step_s": 1.0, "pacer_window": 1},
        "round_policy": {"goal": 2, "over_selection": 3.0},
    },
    "by loss, of those that were used": {
        **ROBUST,
        "selector": {"name": "power_of_choice", "d": 8},
        "round_policy": {"goal": 5, "over_selection": 1.0},
    },
    "by utility, of those that were used": {
        **ROBUST,
        "selector": {"name": "oort", "alpha": 0.0, "epsilon": 0.5, "pacer_step_s": 1.0, "pacer_window": 1},
        "round_policy": {"goal": 5, "over_selection": 1.0},
    },
    "by examples, of those that were used": {
        **ROBUST,
        "selector": {"name": "weighted"},
        "eligibility": [{"name": "min_examples", "num": 2}],
        "round_policy": {"goal": 5, "over_selection": 1.4},
        "stages": [{"name": "clip_norm", "max_norm": 4.0}],
    },
    "each by chance": {"selector": {"name": "poisson", "q": 0.4}, "round_policy": {"goal": 3}},
    "whoever comes first": {"aggregator": "fedbuff", "round_policy": {"goal": 4}},
    "old ones count less": {
        "staleness": {"name": "polynomial"},
        "optimiser": {"name": "fedavgm"},
        "requirement": "require_x_updates",
        "requirement_args": [5],
        "furthest_base_agg": 2,
    },
    "each array by its policy": {
        **RANDOM,
        "round_policy": {"goal": 2, "over_selection": 3.0},
        "optimiser": ADAM,
        "array_policies": {"b": "newest", "steps": "averaged", "norm.*": "averaged"},
    },
    "newest of those that were used": {
        **ROBUST,
        "selector": {"name": "random"},
        "round_policy": {"goal": 6},
        "array_policies": {"b": "newest", "steps": "averaged"},
    },
    "newest of deltas": {
        "aggregator": "fedbuff",
        "update_kind": "delta",
        "round_policy": {"goal": 4},
        "array_policies": {"b": "newest", "w": "averaged", "norm.*": "stepped"},
    },
    "late ones are refused": {
        **RANDOM,
        "round_policy": {"goal": 2, "over_selection": 3.0, "late_updates": "refuse"},
    },
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_clients_and_the_same_bytes(case: str) -> None:
    configuration = {"aggregator": "mean", "seed": 5, **TOLD, **CASES[case]}

    found = simulated(configuration)

    assert found.end_reason == "rounds"
    server = Server(configuration)
    for expected in found.rounds:
        server.play(expected)
    assert server.chosen == [each.chosen for each in found.rounds]
    assert server.digests == [each.sha256 for each in found.rounds]
    assert server.measured == [each.metrics for each in found.rounds]
    assert server.uses == [
        {client: astuple(use) for client, use in each.uses.items()} for each in found.rounds
    ]
    assert len({each.sha256 for each in found.rounds}) == NUM_ROUNDS


def test_the_cases_have_what_they_are_named_after() -> None:
    def rounds_of(case: str) -> Sequence[SimulatedRound]:
        return simulated({"aggregator": "mean", "seed": 5, **TOLD, **CASES[case]}).rounds

    refused = [why.code for each in rounds_of("late ones are refused") for why in each.rejected.values()]
    assert set(refused) == {"late_update"}
    old = rounds_of("old ones count less")
    assert {why.code for each in old for why in each.rejected.values()} == {"too_old"}
    assert any(each.stale for each in old)
    assert any(each.stale for each in rounds_of("whoever comes first"))
    assert any(each.late for each in rounds_of("mean of some"))
    for case in CASES:
        if case.endswith("of those that were used"):
            assert all(not all(use.counts for use in each.uses.values()) for each in rounds_of(case))


@pytest.mark.parametrize(
    "case",
    [
        "by loss, of those that were used",
        "by utility, of those that were used",
        "by examples, of those that were used",
    ],
)
def test_what_a_rejected_update_says_changes_no_choice(case: str) -> None:
    configuration = {"aggregator": "mean", "seed": 5, **TOLD, **CASES[case]}

    def lied(uses: Mapping[int, Mapping[str, Any]]) -> Simulation:
        """The same experiment, in which updates that will be rejected exaggerate."""

        def exaggerate(name: str) -> Any:
            train = train_of(name, configuration)

            def trained(weights: Arrays | None, config: Mapping[str, Any], round_number: int) -> Trained:
                honest = train(weights, config, round_number)
                use = uses.get(round_number, {}).get(name)
                if use is None or use.counts:
                    return honest
                return replace(honest, num_examples=2**40, metrics={**honest.metrics, "loss": 1e9})

            return trained

        clients = [SimulatedClient(name, exaggerate(name), tags=tags_of(name)) for name in IDS]
        return simulate(configuration, clients, initial=INITIAL, rounds=NUM_ROUNDS)

    honest = lied({})
    found = lied({each.number: each.uses for each in honest.rounds})

    assert [each.chosen for each in found.rounds] == [each.chosen for each in honest.rounds]


def test_a_round_that_is_opened_again_asks_the_same_others_and_gives_the_same_bytes() -> None:
    policy = {"goal": 5, "over_selection": 1.0, "deadline_s": 1e6, "quorum": 5}
    configuration = {"aggregator": "mean", "seed": 5, **TOLD, **RANDOM, "round_policy": policy}

    found = simulated(configuration, rounds=1, silent=IDS[:4]).rounds[0]

    assert found.num_reopenings > 0
    server = Server(configuration)
    server.play_again_and_again(found)
    assert server.chosen[-1] == found.chosen
    assert server.digests == [found.sha256]


def simulated(
    configuration: Mapping[str, Any], *, rounds: int = NUM_ROUNDS, silent: Sequence[str] = ()
) -> Simulation:
    clients = [
        SimulatedClient(
            name,
            (lambda *_: None) if name in silent else train_of(name, configuration),
            tags=tags_of(name),
        )
        for name in IDS
    ]
    return simulate(configuration, clients, initial=INITIAL, rounds=rounds)


def tags_of(name: str) -> list[str]:
    return ["even"] if IDS.index(name) % 2 == 0 else []


def train_of(name: str, configuration: Mapping[str, Any]) -> Any:
    """A client that is drawn to numbers of its own, and takes its time."""
    number = IDS.index(name)
    sends_deltas = configuration.get("update_kind") == "delta"
    personal = [pattern for stage in configuration.get("stages", ()) for pattern in stage.get("patterns", ())]

    def train(weights: Arrays | None, config: Mapping[str, Any], round_number: int) -> Trained:
        assert weights is not None
        rng = np.random.default_rng([number, round_number])
        rate = np.float32(config["learning_rate"])
        wanted = {"b": rng.normal(size=4), "w": rng.normal(size=(3, 4)) + number}
        arrays = {"steps": np.array(weights["steps"] + number)}
        for key, goal in wanted.items():
            delta = rate * (goal.astype(np.float32) - weights[key])
            arrays[key] = delta if sends_deltas else weights[key] + delta
        measured = rng.random(4, np.float32) + 1
        arrays["norm.running_var"] = measured - weights["norm.running_var"] if sends_deltas else measured
        return Trained(
            {key: array for key, array in arrays.items() if key not in personal},
            num_examples=1 + number % 4,
            metrics={"loss": float(rng.random()), "told": config["learning_rate"]},
            seconds=float(rng.lognormal(sigma=1.5)),
        )

    return train


class Server:
    """The record, driven by clients that come in a given order."""

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        self.chosen: list[tuple[str, ...]] = []
        self.digests: list[str] = []
        self.measured: list[Any] = []
        self.uses: list[dict[str, Any]] = []
        encoded = encode(INITIAL)
        self.model: FederatedModel = create_federated_model(
            developer=make_user(),
            name="the same",
            initial_model=SafetensorsBody(io.BytesIO(encoded).read, len(encoded)),
            allow_aggregation=False,
            **configuration,
        )
        tag = Tag.objects.create(name="even")
        self.clients = {name: Client.objects.create(id=name, credential_hash=name) for name in IDS}
        for name, client in self.clients.items():
            client.tags.set([tag] if tags_of(name) else [])
        self.model.clients.set(self.clients.values())
        self.training: dict[str, tuple[Trained, ModelAggregate | None]] = {}
        self.sent: set[str] = set()
        self.configuration = configuration
        lifecycle.start(self.model)

    def play(self, expected: SimulatedRound) -> None:
        """One round: whoever is chosen and idle trains; then they answer in the order of the simulation.

        Whose update does not count goes on with the open round, if that is open to it.
        """
        collecting = self.model.rounds.get(state=RoundState.COLLECTING)
        self.chosen.append(tuple(self._chosen(collecting)))
        self._train(self.chosen[-1], collecting)
        for name in expected.rejected:
            assert not self._send(name)
        self._train([name for name in expected.rejected if name in self.chosen[-1]], collecting)
        for name in expected.answered:
            assert self._send(name)
        self._aggregate(collecting)

    def play_again_and_again(self, expected: SimulatedRound) -> None:
        """One round whose deadline passes, as often as the simulation says."""
        collecting = self.model.rounds.get(state=RoundState.COLLECTING)
        for _ in range(expected.num_reopenings + 1):
            Round.objects.filter(pk=collecting.pk, num_updates__gt=0).update(deadline_at=timezone.now())
            fire_deadlines()
            collecting.refresh_from_db()
            self.chosen.append(tuple(self._chosen(collecting)))
            self._train(set(self.chosen[-1]).intersection(expected.answered) - self.sent, collecting)
            for name in expected.answered:
                if name in self.training:
                    assert self._send(name)
        self._aggregate(collecting)

    def _aggregate(self, collecting: Round) -> None:
        aggregate = aggregate_round(collecting.pk)
        assert aggregate is not None
        self.digests.append(aggregate.sha256)
        self.measured.append(Round.objects.get(pk=collecting.pk).metrics)
        complete = collecting.model_updates.filter(status=UpdateStatus.COMPLETE)
        columns = ("verdict", "verdict_by", "weight_used", "step_norm", "distance")
        self.uses.append(
            {str(client): tuple(use) for client, *use in complete.values_list("client_id", *columns)}
        )

    def _chosen(self, collecting: Round) -> Iterable[str]:
        if not self.model.chooses_clients:
            return IDS
        chosen = collecting.participations.filter(is_chosen=True).order_by("client_id")
        return [str(name) for name in chosen.values_list("client_id", flat=True)]

    def _train(self, chosen: Iterable[str], collecting: Round) -> None:
        base = collecting.parent
        weights = INITIAL if base is None else weights_of(base)
        for name in chosen:
            if name not in self.training:
                answer = join(self.model, self.clients[name])
                assert answer.is_accepted, answer
                assert answer.client_config is not None
                trained = train_of(name, self.configuration)(weights, answer.client_config, collecting.number)
                self.training[name] = trained, base

    def _send(self, name: str) -> bool:
        """Whether the update counts."""
        trained, base = self.training.pop(name)
        self.sent.add(name)
        encoded = encode(trained.arrays)
        facts = UpdateFacts(
            base_aggregate_id=NO_AGGREGATE if base is None else base.pk,
            num_examples=trained.num_examples,
            metrics=dict(trained.metrics),
        )
        body = SafetensorsBody(io.BytesIO(encoded).read, len(encoded))
        try:
            return send_body(self.model, self.clients[name], body, facts).counted
        except LateUpdate:
            return False
