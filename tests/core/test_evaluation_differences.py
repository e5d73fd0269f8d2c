"""Metrics that are shown never tell those of one contributor, nor does the difference of two of them."""

import itertools
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from fma_core.evaluation import Isolation, isolation_of


def everyone(*clients):
    """Clients that stand for themselves."""
    return {client: client for client in clients}


def of_hospitals(**clients):
    """Clients by the hospital that they belong to: a=("a1", "a2")."""
    return {client: hospital for hospital, own in clients.items() for client in own}


def test_first_round_isolates_nobody():
    assert isolation_of(everyone(*"abc"), [], min_contributors=3) is None


def test_round_of_one_isolates():
    assert isolation_of(everyone("a"), [], min_contributors=1) == Isolation(1, None)


def test_same_round_again_says_nothing_new():
    assert isolation_of(everyone(*"abc"), [everyone(*"abc")], min_contributors=3) is None


def test_round_with_one_less_is_found_whichever_came_first():
    more, fewer = everyone(*"abcdef"), everyone(*"abcde")
    other = everyone(*"uvwxyz")
    assert isolation_of(fewer, [other, more], min_contributors=3) == Isolation(1, 1)
    assert isolation_of(more, [fewer], min_contributors=3) == Isolation(1, 0)


def test_rounds_that_differ_by_enough_are_shown():
    assert isolation_of(everyone(*"abcdefgh"), [everyone(*"abcde")], min_contributors=3) is None


def test_one_client_less_of_a_hospital_isolates_it():
    whole = of_hospitals(a=("a1", "a2"), b=("b1",), c=("c1",))
    part = of_hospitals(a=("a1",), b=("b1",), c=("c1",))
    assert isolation_of(part, [whole], min_contributors=3) == Isolation(1, 0)


def test_three_rounds_together_isolate_what_no_two_of_them_do():
    # abcdef + defghi - abcghi = 2 def, and with abc x: …; by hand: (abcx + defx - abcdef) / 2 = x.
    shown = [everyone(*"abcx"), everyone(*"defx")]
    assert isolation_of(everyone(*"abcdef"), shown, min_contributors=3) == Isolation(1, None)


@given(st.lists(st.sets(st.integers(0, 4), min_size=2), min_size=1, max_size=4))
def test_one_alone_is_found_exactly_when_exact_arithmetic_finds_it(rounds):
    clients = [everyone(*map(str, round_)) for round_ in rounds]
    found = isolation_of(clients[0], clients[1:], min_contributors=1)
    rows = [[Fraction(client in round_) for client in range(5)] for round_ in rounds]
    alone = any(rank([*rows, [Fraction(i == client) for i in range(5)]]) == rank(rows) for client in range(5))
    assert (found is not None) == alone


@given(st.lists(st.sets(st.integers(0, 5), min_size=1), min_size=2, max_size=4))
def test_hospitals_with_two_clients_are_looked_at_as_one(rounds):
    named = [{str(client): str(client // 2) for client in round_} for round_ in rounds]
    found = isolation_of(named[0], named[1:], min_contributors=1)
    rows = [[Fraction(client in round_) for client in range(6)] for round_ in rounds]
    # Without the columns of a hospital some combination vanishes, which did not vanish with them.
    alone = any(
        rank([row[: 2 * hospital] + row[2 * hospital + 2 :] for row in rows]) < rank(rows)
        for hospital in range(3)
    )
    assert (found is not None) == alone


def rank(rows):
    left, found = [list(row) for row in rows], 0
    for column in range(len(left[0])):
        pivot = next((row for row in left[found:] if row[column]), None)
        if pivot is None:
            continue
        left.remove(pivot)
        left.insert(found, pivot)
        for row in itertools.chain(left[found + 1 :]):
            factor = row[column] / pivot[column]
            row[:] = [a - factor * b for a, b in zip(row, pivot, strict=True)]
        found += 1
    return found
