"""Whether the process that holds a lease still runs, as far as this machine can know."""

import os
import subprocess
import sys
import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from fma_django.models import Round
from fma_django.rounds import claiming, holders, leases
from tests.records import make_client, make_model, send_update

pytestmark = pytest.mark.skipif(not holders.this_machine(), reason="only Linux can tell")

NAME = "from fma_django.rounds.holders import this_process; print(this_process(), flush=True); input()"


def test_a_process_runs_until_it_has_ended() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", NAME], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        assert name.split("/")[2] == str(other.pid)
        assert not holders.has_ended(name)
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert holders.has_ended(name)  # as a zombie, too
    assert holders.has_ended(name)
    assert not holders.has_ended(holders.this_process())


def test_an_id_that_another_process_has_now_is_not_the_one_that_held_it() -> None:
    assert holders.has_ended(holders.this_process() + "0")


ELSEWHERE = "6f1c1f0e-58b4-4c9e-9c0a-3f4c86a6d3a5/4026531836/99999/1"


@pytest.mark.parametrize("name", ["", "x", "/", "//", "a/b/c/d", ELSEWHERE])
def test_a_process_of_another_machine_is_not_guessed_about(name: str) -> None:
    assert not holders.has_ended(name)


@pytest.mark.parametrize("pid", [2**31, 2**63, 2**64, 10**200, "9" * 5000], ids=lambda pid: len(str(pid)))
def test_a_process_id_beyond_all_that_the_system_has_is_not_guessed_about(pid: int | str) -> None:
    assert not holders.has_ended(f"{holders.this_machine()}/{pid}/1")


@pytest.mark.django_db
def test_only_the_lease_of_a_dead_process_of_this_machine_ends() -> None:
    dead = f"{holders.this_machine()}/{2**22 + 7}/1"
    elsewhere = f"{uuid.uuid4()}/1/{2**22 + 7}/1"
    due = {}
    for holder in (dead, elsewhere, "", holders.this_process()):
        model = make_model(requirement="require_x_updates", requirement_args=[1])
        due[holder] = send_update(model, make_client(model).client).round
        assert claiming.claim(due[holder].pk) is not None
        Round.objects.filter(pk=due[holder].pk).update(lease_holder=holder)

    assert [left.pk for left in leases.end_those_of_the_dead()] == [due[dead].pk]
    assert leases.end_those_of_the_dead() == []

    still = Round.objects.filter(lease_expires_at__gt=timezone.now() + timedelta(seconds=5))
    assert set(still) == set(due.values()) - {due[dead]}
    taken = claiming.claim(due[dead].pk)
    assert taken is not None
    assert (taken.claimed.attempts, taken.claimed.lease_holder) == (2, holders.this_process())
