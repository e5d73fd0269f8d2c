"""`fma plot` in process: a picture, or a sentence that says why there is none."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from fma_api.cli import plot as command
from fma_api.cli.application import application
from fma_api.cli.problem import Problem
from fma_django.models import FederatedModel
from fma_django.record.weights import JsonBody
from fma_django.updates.intake import UpdateFacts
from tests.api.conftest import storage  # noqa: F401  # autouse
from tests.records import aggregate_now, make_client, make_model, send_body, weights

pytestmark = pytest.mark.django_db

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "open_existing", lambda _data: None)  # the test's database is open


@pytest.fixture
def model() -> FederatedModel:
    made = make_model(name="cost in $", initial_model=weights())
    client = make_client(made).client
    for loss in (0.5, 0.25):
        current = FederatedModel.objects.get(pk=made.pk)
        facts = UpdateFacts(metrics={"loss": loss, "accuracy": 1 - loss, "$x_$": 1.0})
        send_body(current, client, JsonBody(weights()), facts)
        aggregate_now(made)
    return made


def fma(*arguments: str) -> str:
    result = CliRunner().invoke(application, ["plot", *arguments])
    if result.exception is not None:
        raise result.exception
    return result.output.strip()


def test_picture_of_all_metrics(model: FederatedModel, tmp_path: Path) -> None:
    assert fma(str(model.pk)) == f"model-{model.pk}.png"

    assert (tmp_path / f"model-{model.pk}.png").read_bytes().startswith(PNG)


def test_picture_of_one_metric(model: FederatedModel, tmp_path: Path) -> None:
    fma("cost in $", "--metric", "loss", "--out", "loss.png")

    assert (tmp_path / "loss.png").read_bytes().startswith(PNG)


def test_three_metrics_leave_no_empty_panel(model: FederatedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))

    fma(str(model.pk))

    assert [bool(axes.lines) for axes in figures[0].axes] == [True, True, True, False]
    assert [axes.get_visible() for axes in figures[0].axes] == [True, True, True, False]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metric", "f1"], "no published round has the metric 'f1'; there are $x_$, accuracy, loss"),
        (["--out", "no/such/folder/x.png"], "cannot be written: No such file or directory"),
    ],
    ids=["unknown metric", "no folder"],
)
def test_what_cannot_be_drawn_is_said(model: FederatedModel, arguments: list[str], said: str) -> None:
    with pytest.raises(Problem) as raised:
        fma(str(model.pk), *arguments)

    assert said in str(raised.value)


def test_model_without_metrics_and_model_that_is_not_there() -> None:
    with pytest.raises(Problem, match="no published round of this model has metrics"):
        fma(str(make_model().pk))
    with pytest.raises(Problem, match="there is no model"):
        fma("nothing")


def test_without_matplotlib_it_says_what_to_install(
    model: FederatedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda _name: None)

    with pytest.raises(Problem, match=r"pip install 'federated-model-aggregation\[plot\]'"):
        fma(str(model.pk))
