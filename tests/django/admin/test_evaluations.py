"""Evaluations in the admin: merged metrics, nobody's own, and one that is ended by hand."""

from django.test import Client as Browser
from django.urls import reverse

from fma_django.models import EvaluationRound
from tests.evaluations import answer, open_to
from tests.records import WEIGHTS, make_client, make_model


def page_of(evaluation: EvaluationRound, page: str = "change") -> str:
    return reverse(f"admin:fma_django_evaluationround_{page}", args=[evaluation.pk])


def asked_of(num_clients: int, *, answers: int) -> EvaluationRound:
    model = make_model(initial_model=WEIGHTS)
    clients = [make_client(model).client for _ in range(num_clients)]
    evaluation = open_to(model)
    for hits, client in enumerate(clients[:answers], start=41):
        answer(evaluation, client, hits=hits)
    return evaluation


def test_page_shows_the_metrics_of_all_together_and_of_nobody_alone(browser: Browser) -> None:
    page = browser.get(page_of(asked_of(3, answers=3))).content.decode()
    assert "&quot;num_examples&quot;: 126" in page
    assert all(f": {alone}" not in page for alone in (41, 42, 43))


def test_open_evaluation_says_why_nothing_is_shown(browser: Browser) -> None:
    page = browser.get(page_of(asked_of(4, answers=3))).content.decode()
    assert "still_open: metrics are shown when the evaluation has closed" in page
    assert "num_examples" not in page


def test_operator_closes_an_evaluation(browser: Browser) -> None:
    evaluation = asked_of(4, answers=3)
    url = page_of(evaluation, "close_this")
    assert "Close this evaluation?" in browser.get(url).content.decode()
    assert EvaluationRound.objects.get().is_open

    page = browser.post(url, {"confirmed": "yes"}, follow=True).content.decode()

    found = EvaluationRound.objects.get()
    assert (found.state, found.reason) == ("closed", "by_owner")
    assert "is closed." in page
    assert "is closed already" in browser.post(url, {"confirmed": "yes"}, follow=True).content.decode()
