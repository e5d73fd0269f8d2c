"""Filters: whom they let pass, what they say, what an unknown fact is to them, and which parameters they refuse."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import InvalidVersion
from packaging.version import Version as PackagingVersion

from fma_core.errors import InvalidParameter
from fma_core.selection import Candidate, filters
from fma_core.selection.version import Version

CASES: list[tuple[str, dict[str, Any], dict[str, Any], str | None]] = [
    ("tags", {"any_of": ["a", "b"]}, {"tags": {"b"}}, None),
    ("tags", {"any_of": ["a", "b"]}, {"tags": {"c"}}, "tags"),
    ("tags", {"all_of": ["a", "b"]}, {"tags": {"a", "b", "c"}}, None),
    ("tags", {"all_of": ["a", "b"]}, {"tags": {"b"}}, "tags"),
    ("tags", {"none_of": ["a"]}, {"tags": {"b"}}, None),
    ("tags", {"none_of": ["a"]}, {"tags": {"a", "b"}}, "tags"),
    ("tags", {"none_of": ["a"]}, {}, None),
    ("min_examples", {"num": 10}, {"num_examples": 10}, None),
    ("min_examples", {"num": 10}, {"num_examples": 9}, "too_few_examples"),
    ("min_examples", {"num": 10}, {}, None),
    ("min_examples", {"num": 10, "if_unknown": "refuse"}, {}, "not_reported"),
    ("min_seconds_between_turns", {"seconds": 60}, {"seconds_since_turn": 60.0}, None),
    ("min_seconds_between_turns", {"seconds": 60}, {"seconds_since_turn": 59.0}, "turn_too_recent"),
    ("min_seconds_between_turns", {"seconds": 60}, {}, None),
    ("min_rounds_between_turns", {"rounds": 2}, {"rounds_since_turn": 3}, None),
    ("min_rounds_between_turns", {"rounds": 2}, {"rounds_since_turn": 2}, "turn_too_recent"),
    ("min_rounds_between_turns", {"rounds": 2}, {}, None),
    ("speed", {"max_ping_ms": 50}, {"ping_ms": 50.0}, None),
    ("speed", {"max_ping_ms": 50}, {"ping_ms": 51.0}, "too_slow"),
    ("speed", {"max_ping_ms": 50}, {"ping_ms": float("nan")}, "too_slow"),
    ("speed", {"max_ping_ms": 50}, {}, "not_reported"),
    ("speed", {"min_download_mbps": 5}, {"download_mbps": 5.0}, None),
    ("speed", {"min_download_mbps": 5}, {"download_mbps": 4.0}, "too_slow"),
    ("speed", {"min_upload_mbps": 5}, {"upload_mbps": 5.0}, None),
    ("speed", {"min_upload_mbps": 5}, {"upload_mbps": 4.0, "download_mbps": 9.0}, "too_slow"),
    ("speed", {"min_upload_mbps": 5, "if_unknown": "accept"}, {}, None),
    ("free_memory", {"min_bytes": 1000}, {"free_memory_bytes": 1000}, None),
    ("free_memory", {"min_bytes": 1000}, {"free_memory_bytes": 999}, "too_little_memory"),
    ("free_memory", {"min_bytes": 1000}, {}, "not_reported"),
    ("battery", {"min_level": 0.5}, {"battery": 0.5}, None),
    ("battery", {"min_level": 0.5}, {"battery": 0.4, "is_charging": False}, "battery_low"),
    ("battery", {"min_level": 0.5}, {"battery": 0.4, "is_charging": True}, None),
    ("battery", {"min_level": 0.5}, {"is_charging": False}, "not_reported"),
    ("charging", {}, {"is_charging": True}, None),
    ("charging", {}, {"is_charging": False}, "not_charging"),
    ("charging", {}, {}, "not_reported"),
    ("unmetered", {}, {"is_unmetered": True}, None),
    ("unmetered", {}, {"is_unmetered": False}, "metered_network"),
    ("unmetered", {"if_unknown": "accept"}, {}, None),
    ("client_version", {"at_least": "1.10"}, {"version": "1.10.0"}, None),
    ("client_version", {"at_least": "1.10"}, {"version": "1.9.9"}, "client_version"),
    ("client_version", {"at_least": "1.10"}, {"version": "1.10rc1"}, "client_version"),
    ("client_version", {"before": "2"}, {"version": "1.99"}, None),
    ("client_version", {"before": "2"}, {"version": "2.0.0"}, "client_version"),
    ("client_version", {"before": "2"}, {"version": "newest"}, "client_version"),
    ("client_version", {"before": "2"}, {}, "not_reported"),
    ("seen_within", {"seconds": 60}, {"seconds_since_seen": 60.0}, None),
    ("seen_within", {"seconds": 60}, {"seconds_since_seen": 61.0}, "not_seen"),
    ("seen_within", {"seconds": 60}, {}, "not_seen"),
]


@pytest.mark.parametrize(("name", "params", "facts", "code"), CASES)
def test_a_filter_lets_pass_or_says_why_not(
    name: str, params: dict[str, Any], facts: dict[str, Any], code: str | None
) -> None:
    if "tags" in facts:
        facts = {"tags": frozenset(facts["tags"])}
    refusal = filters.build(name, params).refuse(Candidate("a", **facts))

    assert (refusal and refusal.code) == code
    assert refusal is None or refusal.detail


def test_every_filter_is_under_test() -> None:
    assert {case[0] for case in CASES} == set(filters.names())


def test_what_is_unknown_is_named() -> None:
    refused = [
        filters.build(name, params).refuse(Candidate("a", **facts))
        for name, params, facts, code in CASES
        if code == "not_reported"
    ]

    assert all(
        refusal and refusal.detail.startswith("the client has never reported its ") for refusal in refused
    )


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("tags", {}),
        ("tags", {"any_of": ["a"], "none_of": ["a"]}),
        ("tags", {"any_of": "a"}),
        ("min_examples", {}),
        ("min_examples", {"num": 0}),
        ("min_examples", {"num": 1, "if_unknown": "maybe"}),
        ("min_seconds_between_turns", {"seconds": 0}),
        ("min_rounds_between_turns", {"rounds": 1.5}),
        ("speed", {}),
        ("speed", {"max_ping_ms": -1}),
        ("free_memory", {"min_bytes": "1 GB"}),
        ("battery", {"min_level": 20}),
        ("client_version", {}),
        ("client_version", {"at_least": "newest"}),
        ("client_version", {"before": "1" * 101}),
        ("seen_within", {"seconds": float("inf")}),
    ],
)
def test_parameters_that_make_no_condition_are_refused(name: str, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter):
        filters.build(name, params)


def test_a_turn_that_was_too_recent_says_when_to_come_back() -> None:
    condition = filters.build("min_seconds_between_turns", {"seconds": 60})
    refusal = condition.refuse(Candidate("a", seconds_since_turn=45.0))

    assert refusal is not None
    assert refusal.retry_after_s == 15.0


def test_what_a_client_reports_is_cut_short_in_the_reason() -> None:
    condition = filters.build("client_version", {"at_least": "1"})
    refusal = condition.refuse(Candidate("a", version="9" * 10_000))

    assert refusal is not None
    assert len(refusal.detail) < 200


NUMBERS = st.integers(0, 20).map(str)
PARTS = st.sampled_from(
    ["", "a1", "alpha", "b2", "-beta.3", "rc1", "c", "pre", ".post1", "-7", "r2", ".dev0", "dev3", "+build.5"]
)
RELEASES = st.lists(NUMBERS, min_size=1, max_size=4).map(".".join)
TEXTS = st.tuples(st.sampled_from(["", "v", " "]), RELEASES, PARTS, PARTS, PARTS).map("".join)


@given(TEXTS, TEXTS)
def test_versions_are_ordered_as_pep_440_orders_them(first: str, second: str) -> None:
    try:
        known = [PackagingVersion(text.partition("+")[0]) for text in (first, second)]
        for text in (first, second):
            PackagingVersion(text)
    except InvalidVersion:
        return
    found = [Version.parse(text) for text in (first, second)]

    assert found[0] is not None
    assert found[1] is not None
    assert (found[0] < found[1], found[0] == found[1]) == (known[0] < known[1], known[0] == known[1])


@given(TEXTS | st.text(max_size=20))
def test_what_is_no_version_is_none_here_too(text: str) -> None:
    try:
        expected = PackagingVersion(text).epoch == 0 and "!" not in text
    except InvalidVersion:
        expected = False

    assert (Version.parse(text) is not None) == expected


def test_filters_are_parts_that_come_back_from_their_spec() -> None:
    for name, params, _, _ in CASES:
        part = filters.build(name, params)
        assert filters.build_spec(filters.spec_of(part)) == part
        assert dataclasses.replace(part) == part
