"""Curves of a model's metrics as inline SVG: no script, the colours of the page, and a table for whoever reads it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from fma_django.admin.links import csv_url
from fma_django.models import FederatedModel
from fma_django.record.queries.curves import Curve, curves_of

MAX_CURVES = 6
MAX_TABLE_ROWS = 20
WIDTH, HEIGHT = 360.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 8.0, 8.0, 22.0


@dataclass(frozen=True)
class Drawn:
    """A curve as the template draws it. line, band: the points of a polyline and of a polygon."""

    curve: Curve
    line: str
    band: str
    dots: tuple[tuple[str, str], ...]
    y_ticks: tuple[tuple[str, str], ...]
    x_ticks: tuple[tuple[str, str], ...]

    @property
    def description(self) -> str:
        first, last = self.curve.points[0], self.curve.points[-1]
        return (
            f"From {first.mean:.4g} in round {first.round} to {last.mean:.4g} in round {last.round}; "
            "the band shows the 5th to the 95th percentile of the clients."
        )

    @property
    def table(self) -> Sequence[Any]:
        return self.curve.points[: -MAX_TABLE_ROWS - 1 : -1]


def curves_html(federated_model: FederatedModel) -> SafeString:
    curves = curves_of(federated_model)
    context = {
        "csv_url": csv_url(federated_model),
        "drawn": [draw(curve) for curve in curves[:MAX_CURVES]],
        "more": len(curves) - MAX_CURVES,
        "left": f"{LEFT:g}",
        "width": f"{WIDTH:g}",
        "height": f"{HEIGHT:g}",
        "right": f"{WIDTH - RIGHT:g}",
        "bottom": f"{HEIGHT - BOTTOM:g}",
        "baseline": f"{HEIGHT - 6:g}",
        "gutter": f"{LEFT - 6:g}",
    }
    return render_to_string("fma_django/admin/curves.html", context)


def draw(curve: Curve) -> Drawn:
    rounds = [point.round for point in curve.points]
    low = min(min(point.low, point.mean) for point in curve.points)
    high = max(max(point.high, point.mean) for point in curve.points)

    def x(number: float) -> str:
        share = 0.5 if rounds[0] == rounds[-1] else (number - rounds[0]) / (rounds[-1] - rounds[0])
        return f"{LEFT + share * (WIDTH - LEFT - RIGHT):.1f}"

    def y(value: float) -> str:
        # Halves, since the difference of two finite numbers may be infinite.
        span = high / 2 - low / 2
        share = 0.5 if span == 0 else (value / 2 - low / 2) / span
        return f"{HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM):.1f}"

    above = [f"{x(point.round)},{y(point.high)}" for point in curve.points]
    below = [f"{x(point.round)},{y(point.low)}" for point in reversed(curve.points)]
    dots = [(x(point.round), y(point.mean)) for point in curve.points]
    values = (low,) if low == high else (low, low / 2 + high / 2, high)
    return Drawn(
        curve=curve,
        line=" ".join(",".join(dot) for dot in dots),
        band=" ".join(above + below),
        dots=tuple(dots) if len(dots) <= 40 else (),
        y_ticks=tuple((y(value), f"{value:.3g}") for value in values),
        x_ticks=tuple((x(number), str(number)) for number in sorted({rounds[0], rounds[-1]})),
    )
