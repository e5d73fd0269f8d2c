"""Settings of rounds, of selection and of client_config: kept as they were sent, or refused by name."""

import json
from typing import Any

import pytest
from rest_framework.test import APIClient

from fma_django.models import FederatedModel
from tests.api.callers import API

pytestmark = pytest.mark.django_db

SETTINGS: dict[str, Any] = {
    "round_policy": {"goal": 3, "deadline_s": 600, "quorum": 2, "on_failed_quorum": "end", "num_rounds": 9},
    "selector": {"name": "poisson", "q": 0.5},
    "eligibility": [{"name": "tags", "all_of": ["gpu"]}, {"name": "battery", "min_level": 0.5}],
    "seed": 2**53 - 1,
    "client_config": {"lr": {"$schedule": {"name": "cosine", "initial": 0.1, "num_rounds": 9}}, "deep": [1]},
    "client_config_overrides": [{"rounds": [2, None], "tags": ["gpu"], "set": {"batch_size": 64}}],
    "client_config_schema": {"type": "object", "required": ["lr"]},
}
READ_ONLY = {
    "state": "ended",
    "end_reason": "cancelled",
    "started_on": "2026-01-01T00:00:00Z",
    "ended_on": "2026-01-01T00:00:00Z",
    "config_version": 7,
}


def test_a_model_takes_them_and_gives_them_back(owner: APIClient) -> None:
    made = owner.post(f"{API}models/", {"name": "m", "aggregator": "mean", **SETTINGS})

    assert made.status_code == 201, made.content
    said = owner.get(f"{API}models/{made.json()['id']}/").json()
    assert {name: said[name] for name in SETTINGS} == SETTINGS


def test_without_them_everyone_is_asked_and_nothing_ends_a_round(owner: APIClient) -> None:
    said = owner.post(f"{API}models/", {"name": "m", "aggregator": "mean"}).json()

    assert said["selector"] == {"name": "everyone"}
    for name in ("round_policy", "eligibility", "client_config", "client_config_overrides"):
        assert not said[name]
    assert 0 <= said["seed"] < 2**53


def test_what_the_server_says_is_not_taken(owner: APIClient, model: FederatedModel) -> None:
    url = f"{API}models/{model.pk}/"
    before = owner.get(url).json()

    after = owner.patch(url, READ_ONLY).json()

    assert {name: after[name] for name in READ_ONLY} == {name: before[name] for name in READ_ONLY}


def deep(levels: int) -> Any:
    return json.loads('{"a":' * levels + "1" + "}" * levels)


WRONG: list[Any] = [
    ({"round_policy": []}, "round_policy"),
    ({"round_policy": None}, "round_policy"),
    ({"round_policy": {"goals": 3}}, "round_policy"),
    ({"round_policy": {"goal": "3"}}, "round_policy"),
    ({"round_policy": {"goal": True}}, "round_policy"),
    ({"round_policy": {"goal": 10**30}}, "round_policy"),
    ({"round_policy": {"goal": 1, "min_updates": 2}}, "round_policy"),
    ({"round_policy": {"deadline_s": 0}}, "round_policy"),
    ({"round_policy": {"end_date": "2026-01-01"}}, "round_policy"),
    ({"round_policy": {"metric": "a\x00"}}, "round_policy"),
    ({"round_policy": deep(100)}, "round_policy"),
    ({"selector": "random"}, "selector"),
    ({"selector": None}, "selector"),
    ({"selector": {}}, "selector"),
    ({"selector": {"name": "lottery"}}, "selector"),
    ({"selector": {"name": ["random"]}}, "selector"),
    ({"selector": {"name": "random"}}, "selector"),
    ({"selector": {"name": "poisson", "q": 2}}, "selector"),
    ({"eligibility": {"name": "charging"}}, "eligibility"),
    ({"eligibility": None}, "eligibility"),
    ({"eligibility": ["charging"]}, "eligibility"),
    ({"eligibility": [{"name": "luck"}]}, "eligibility"),
    ({"eligibility": [{"name": "charging"}] * 17}, "eligibility"),
    ({"eligibility": [{"name": "tags", "all_of": "gpu"}]}, "eligibility"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**53}, "seed"),
    ({"seed": "x"}, "seed"),
    ({"seed": None}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"client_config": []}, "client_config"),
    ({"client_config": None}, "client_config"),
    ({"client_config": {"a": "\x00"}}, "client_config"),
    ({"client_config": {"": 1}}, "client_config"),
    ({"client_config": {"lr": {"$schedule": {"name": "zigzag"}}}}, "client_config"),
    ({"client_config": {"a": "x" * 70_000}}, "client_config"),
    ({"client_config": deep(40)}, "client_config"),
    ({"client_config_overrides": {}}, "client_config_overrides"),
    ({"client_config_overrides": None}, "client_config_overrides"),
    ({"client_config_overrides": [{"set": 1}]}, "client_config_overrides"),
    ({"client_config_overrides": [{"when": 1, "set": {}}]}, "client_config_overrides"),
    ({"client_config_overrides": [{"rounds": [3, 1], "set": {}}]}, "client_config_overrides"),
    ({"client_config_overrides": [{"set": {}}] * 1001}, "client_config_overrides"),
    ({"client_config_overrides": [{"set": {"a": "\x00"}}]}, "client_config_overrides"),
    ({"client_config_schema": {"type": 3}}, "client_config_schema"),
    ({"client_config_schema": "object"}, "client_config_schema"),
    ({"client_config_schema": {"description": "x" * 70_000}}, "client_config_schema"),
    ({"client_config_schema": {"required": ["lr"]}}, "client_config"),
    (
        {
            "client_config_schema": {"additionalProperties": {"type": "number"}},
            "client_config_overrides": [{"set": {"lr": "fast"}}],
        },
        "client_config_overrides",
    ),
]


@pytest.mark.parametrize(
    ("wrong", "field"), WRONG, ids=[f"{n} {field}" for n, (_, field) in enumerate(WRONG)]
)
def test_what_cannot_work_is_refused_under_its_field(
    owner: APIClient, model: FederatedModel, wrong: Any, field: str
) -> None:
    before = owner.get(f"{API}models/{model.pk}/").json()

    made = owner.post(f"{API}models/", {"name": "m", "aggregator": "mean", **wrong})
    changed = owner.patch(f"{API}models/{model.pk}/", wrong)

    for answer in (made, changed):
        assert answer.status_code == 400, answer.content
        assert list(answer.json()["errors"]) == [field]
        assert answer.json()[field]
    assert owner.get(f"{API}models/{model.pk}/").json() == before
    assert FederatedModel.objects.count() == 1


def test_a_config_must_fit_its_schema_in_the_round_of_each_override(owner: APIClient) -> None:
    """The learning rate is too large in the first round, but nobody is told it there."""
    body = {
        "name": "m",
        "aggregator": "fedprox",
        "aggregator_params": {"mu": 0.5},
        "client_config": {"lr": 1.0},
        "client_config_schema": {"required": ["mu"], "properties": {"lr": {"maximum": 1.0}}},
    }
    growing = {"$schedule": {"name": "linear", "initial": 0.5, "final": 2.0, "num_rounds": 10}}

    fits = owner.post(f"{API}models/", {**body, "client_config_overrides": [{"set": {"lr": growing}}]})
    later = [{"rounds": [10, None], "set": {"lr": growing}}]
    does_not = owner.post(f"{API}models/", {**body, "client_config_overrides": later})

    assert fits.status_code == 201, fits.content
    assert (does_not.status_code, does_not.json()["code"]) == (400, "schema_violation")
    assert list(does_not.json()["errors"]) == ["client_config_overrides"]


def test_a_misspelt_setting_is_not_left_out_silently(owner: APIClient) -> None:
    answer = owner.post(f"{API}models/", {"name": "m", "aggregator": "mean", "eligibilty": []})

    assert answer.status_code == 400
    assert "eligibility" in answer.json()["eligibilty"][0]
