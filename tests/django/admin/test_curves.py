"""Curves of a model on its admin page."""

import re
from xml.etree import ElementTree

import pytest
from django.db import connection
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext

from fma_django.admin.curves import MAX_CURVES, curves_html, draw
from fma_django.experiments.lifecycle import rewind
from fma_django.models import FederatedModel, ModelAggregate, Round
from fma_django.record.queries.curves import Curve, Point, curves_of
from tests.django.admin.test_pages import url_of
from tests.records import make_aggregate, make_client, make_model, weights

pytestmark = pytest.mark.django_db

SVG = re.compile(r"<svg.*?</svg>", re.DOTALL)


def model_with(num_rounds: int, *names: str) -> FederatedModel:
    model = make_model(initial_model=weights())
    client = make_client(model).client
    for number in range(1, num_rounds + 1):
        make_aggregate(model, client)
        statistics = {"mean": 1 / number, "min": 0.0, "max": 2.0, "p5": 0.1, "p50": 0.5, "p95": 1.5}
        merged = {name: {**statistics, "count": 3, "weight": 3.0} for name in names}
        Round.objects.filter(federated_model=model, number=number).update(metrics=merged)
    return model


def test_page_of_a_model_shows_its_curves(browser: Browser) -> None:
    model = model_with(3, "loss", "accuracy")

    content = browser.get(url_of(FederatedModel, "change", model.pk)).content.decode()

    drawn = [ElementTree.fromstring(svg) for svg in SVG.findall(content) if "polyline" in svg]
    assert [svg.findtext("title") for svg in drawn] == ["loss, training", "accuracy, training"]
    for svg in drawn:
        assert svg.get("role") == "img"
        described = {svg.find("title").get("id"), svg.find("desc").get("id")}
        assert set((svg.get("aria-labelledby") or "").split()) == described
        assert len(svg.findall("circle")) == 3
    assert 'aria-label="loss, training"' in content
    assert "From 1 in round 1 to 0.3333 in round 3" in content
    assert f"/api/v1/models/{model.pk}/metrics/?format=csv" in content


def test_model_without_metrics_says_so(browser: Browser) -> None:
    content = browser.get(url_of(FederatedModel, "change", make_model().pk)).content.decode()

    assert "no published round has metrics" in content


def test_names_of_metrics_are_harmless() -> None:
    html = curves_html(model_with(1, "<script>alert(1)</script>"))

    assert "<script>" not in html


def test_of_many_metrics_some_are_drawn() -> None:
    names = [f"m{number}" for number in range(MAX_CURVES + 3)]

    html = curves_html(model_with(1, *names))

    assert len(SVG.findall(html)) == MAX_CURVES
    assert "3 more metrics" in html


def test_curves_take_a_constant_number_of_queries() -> None:
    costs = []
    for num_rounds in (1, 5):
        model = model_with(num_rounds, "loss")
        with CaptureQueriesContext(connection) as captured:
            curves_html(model)
        costs.append(len(captured))

    assert costs == [2, 2]


@pytest.mark.parametrize(
    "values",
    [(1.0,), (1.0, 1.0), (-1.7e308, 1.7e308), (0.0, 5e-324), (1.0, 2.0, 0.5)],
    ids=["one", "constant", "largest", "smallest", "some"],
)
def test_every_point_is_within_the_picture(values: tuple[float, ...]) -> None:
    points = tuple(Point(number, value, value, value, 1) for number, value in enumerate(values, start=1))

    drawn = draw(Curve("training", "x", points))

    for x, y in drawn.dots:
        assert 0 <= float(x) <= 360
        assert 0 <= float(y) <= 150


def test_rounds_that_a_rewind_abandoned_are_marked_and_in_no_curve(browser: Browser) -> None:
    model = model_with(2, "loss")
    first, second = ModelAggregate.objects.order_by("pk")
    assert [len(curve.points) for curve in curves_of(model)] == [2]

    rewind(model, first)

    assert [[point.mean for point in curve.points] for curve in curves_of(model)] == [[1.0]]
    pages = {
        aggregate: browser.get(url_of(ModelAggregate, "change", aggregate.pk)).content.decode()
        for aggregate in (first, second)
    }
    assert "abandoned" in pages[second]
    assert "abandoned" not in pages[first]
    assert "Published, abandoned" in browser.get(url_of(Round, "change", second.round.pk)).content.decode()
    listed = browser.get(url_of(ModelAggregate, "changelist"), {"is_abandoned__exact": "1"})
    assert list(listed.context["cl"].result_list) == [second]
