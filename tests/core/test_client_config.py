"""The configuration that clients get: the order of its overrides, schedules by round, and refusals on saving."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fma_core.aggregation.aggregators import FedProx
from fma_core.client_config import MAX_CONFIG_BYTES, MAX_DEPTH, MAX_OVERRIDES, check, resolve, schedules
from fma_core.errors import InvalidParameter, InvalidPart, UnknownPart

KEYS = ["learning_rate", "local_epochs", "mu"]
TAGS = ["phone", "hospital"]
CLIENTS = ["a", "b"]

ROUNDS = st.tuples(st.integers(1, 4), st.none() | st.integers(4, 6)).map(list)
SETS = st.dictionaries(st.sampled_from(KEYS), st.integers(0, 99), max_size=3)
OVERRIDES = st.lists(
    st.fixed_dictionaries(
        {"set": SETS},
        optional={
            "rounds": ROUNDS,
            "tags": st.lists(st.sampled_from(TAGS), min_size=1),
            "clients": st.lists(st.sampled_from(CLIENTS), min_size=1),
        },
    ),
    max_size=6,
)


def scheduled(name, **parameters):
    return {"$schedule": {"name": name, **parameters}}


@given(SETS, OVERRIDES, st.integers(1, 7), st.sampled_from(CLIENTS), st.sets(st.sampled_from(TAGS)), SETS)
def test_each_key_is_of_the_last_that_says_it(config, overrides, number, client, tags, own):
    check(config, overrides)

    found = resolve(config, overrides, round_number=number, client=client, tags=tags, strategy_config=own)

    said = [config, own]
    for kind in (set(), {"tags"}, {"clients"}):
        for override in overrides:
            named = {"clients"} if "clients" in override else {"tags"} & override.keys()
            first, last = override.get("rounds", [1, None])
            holds = (
                first <= number <= (last or number)
                and client in override.get("clients", [client])
                and (not override.get("tags") or bool(tags & set(override["tags"])))
            )
            said += [override["set"]] * (named == kind and holds)
    assert found == {key: value for one in said for key, value in one.items()}


def test_the_page_of_an_example():
    config = {"learning_rate": scheduled("step", initial=0.1, every=2, factor=0.5), "local_epochs": 1}
    overrides = [
        {"clients": ["c7"], "set": {"local_epochs": 9}},
        {"tags": ["slow", "old"], "set": {"local_epochs": 3, "mu": 0.5}},
        {"rounds": [3, None], "set": {"local_epochs": 2, "learning_rate": 0.01}},
        {"rounds": [1, 1], "tags": ["slow"], "set": {"local_epochs": 4}},
    ]
    check(config, overrides)

    def told(number, **who):
        return resolve(
            config, overrides, round_number=number, strategy_config=FedProx(mu=0.1).client_config, **who
        )

    assert told(1) == {"learning_rate": 0.1, "local_epochs": 1, "mu": 0.1}
    assert told(3) == {"learning_rate": 0.01, "local_epochs": 2, "mu": 0.1}
    assert told(1, tags=["slow"]) == {"learning_rate": 0.1, "local_epochs": 4, "mu": 0.5}
    assert told(2, tags=["slow"]) == {"learning_rate": 0.1, "local_epochs": 3, "mu": 0.5}
    assert told(4, tags=["old"], client="c7") == {"learning_rate": 0.01, "local_epochs": 9, "mu": 0.5}


def test_schedules_stand_anywhere_and_nothing_that_was_given_changes():
    rate = scheduled("linear", initial=1, final=0, num_rounds=3)
    config = {"optimiser": {"name": "sgd", "rates": [rate, 7]}, "note": None}
    before = json.dumps(config)

    found = resolve(config, [{"set": {"extra": {"deep": rate}}}], round_number=2)

    expected = {"optimiser": {"name": "sgd", "rates": [0.5, 7]}, "note": None, "extra": {"deep": 0.5}}
    assert found == expected
    assert json.dumps(config) == before


@pytest.mark.parametrize(
    ("name", "parameters", "numbers"),
    [
        ("constant", {"value": 3}, [3, 3, 3, 3, 3, 3]),
        ("piecewise", {"values": [5, 2, 1], "starts": [2, 5]}, [5, 2, 2, 2, 1, 1]),
        ("step", {"initial": 8, "every": 2, "factor": 0.5}, [8, 8, 4, 4, 2, 2]),
        ("exponential", {"initial": 8, "factor": 0.5}, [8, 4, 2, 1, 0.5, 0.25]),
        ("inverse", {"initial": 6, "decay": 1}, [6, 3, 2, 1.5, 1.2, 1]),
        ("linear", {"initial": 0, "final": 4, "num_rounds": 5}, [0, 1, 2, 3, 4, 4]),
        ("cosine", {"initial": 4, "num_rounds": 5}, [4, 2 + math.sqrt(2), 2, 2 - math.sqrt(2), 0, 0]),
        ("warmup_cosine", {"peak": 4, "num_warmup": 3, "num_rounds": 5}, [0, 2, 4, 2, 0, 0]),
    ],
)
def test_numbers_of_the_first_rounds(name, parameters, numbers):
    schedule = schedules.build(name, parameters)
    assert [schedule.at(number) for number in range(1, 7)] == pytest.approx(numbers, abs=1e-15)


def test_a_rounded_schedule_gives_integers():
    epochs = scheduled("linear", initial=5, final=1, num_rounds=10, rounded=True)
    found = [resolve({"e": epochs}, round_number=number)["e"] for number in (1, 4, 10)]
    assert found == [5, 4, 1]
    assert all(type(number) is int for number in found)


@pytest.mark.parametrize(
    ("config", "where", "what"),
    [
        ([], "client_config", "must be an object"),
        ({"a": math.nan}, "client_config.a", "finite"),
        ({"a": {"b": [1, math.inf]}}, r"client_config.a.b\[1\]", "finite"),
        ({"a": b"bytes"}, "client_config.a", "must be JSON"),
        ({1: 2}, "client_config", "key must be a string"),
        ({"": 2}, "client_config", "key must be a string"),
        ({"$secret": 2}, "client_config", r"\$secret' is unknown"),
        ({"a": "x" * MAX_CONFIG_BYTES}, "client_config", "bytes"),
        ({"a": "\ud800"}, "client_config", "surrogate"),
        ({"$schedule": {"name": "constant", "value": 1}}, "client_config", "stands for the value"),
        ({"a": {"$schedule": {"name": "constant", "value": 1}, "b": 1}}, "client_config.a", "nothing"),
        ({"a": {"$schedule": "cosine"}}, "client_config.a", "must be an object"),
        ({"a": scheduled("step", initial=1)}, "client_config.a", "'every'"),
        ({"a": scheduled("piecewise", values=[1, 2])}, "client_config.a", "values"),
        ({"a": scheduled("piecewise", values=[1, 2, 3], starts=[9, 4])}, "client_config.a", "rise"),
        ({"a": scheduled("warmup_cosine", peak=1, num_warmup=9, num_rounds=9)}, "client_config.a", "less"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "config",
)
def test_a_config_that_cannot_work_is_refused(config, where, what):
    with pytest.raises(InvalidParameter, match=f"^{where}: .*{what}") as raised:
        check(config)
    assert raised.value.facts["field"] == "client_config"


@pytest.mark.parametrize(
    ("override", "where", "what"),
    [
        ({"rounds": [1, 2]}, "", "set"),
        ([], "", "set"),
        ({"set": {}, "round": 3}, "", "'round' is unknown"),
        ({"set": 3}, ".set", "object"),
        ({"set": {"a": {"b": math.nan}}}, ".set.a.b", "finite"),
        ({"set": {}, "rounds": 3}, ".rounds", r"\[first, last\]"),
        ({"set": {}, "rounds": [0, 3]}, ".rounds", "1"),
        ({"set": {}, "rounds": [4, 3]}, ".rounds", "first ≤ last"),
        ({"set": {}, "rounds": [True, None]}, ".rounds", "first"),
        ({"set": {}, "tags": "phone"}, ".tags", "list of strings"),
        ({"set": {}, "clients": []}, ".clients", "one or more"),
        ({"set": {}, "clients": [7]}, ".clients", "list of strings"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "override",
)
def test_an_override_that_cannot_work_is_refused(override, where, what):
    at = r"client_config_overrides\[1\]" + where
    with pytest.raises(InvalidParameter, match=f"^{at}: .*{what}") as raised:
        check({}, [{"set": {}}, override])
    assert raised.value.facts["field"] == "client_config_overrides"


@pytest.mark.parametrize(
    "overrides",
    [{}, "set", [{"set": {}}] * (MAX_OVERRIDES + 1), [{"set": {"a": "x" * 1000}}] * 300],
    ids=["object", "string", "many", "large"],
)
def test_overrides_are_a_bounded_list(overrides):
    with pytest.raises(InvalidParameter, match="^client_config_overrides: "):
        check({}, overrides)


def test_depth_is_bounded():
    deep = value = {}
    for _ in range(10_000):
        value["a"] = value = {}
    with pytest.raises(InvalidParameter, match=f"{MAX_DEPTH} levels"):
        check({"a": deep})


def test_an_unknown_schedule_is_refused_with_what_was_meant():
    with pytest.raises(UnknownPart, match=r"client_config\.learning_rate: .*did you mean 'cosine'") as raised:
        check({"learning_rate": scheduled("cosin")})
    assert raised.value.facts["field"] == "client_config"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(JSON, JSON)
def test_whatever_is_accepted_can_be_resolved_and_whatever_is_not_says_why(config, overrides):
    refused = None
    try:
        check(config, overrides)
    except InvalidPart as error:
        refused = error
    if refused is None:
        json.dumps(resolve(config, overrides, round_number=3, client="a", tags=["b"]), allow_nan=False)
    else:
        assert refused.facts["field"] in ("client_config", "client_config_overrides")
