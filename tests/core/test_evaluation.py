"""Metrics of merged statistics are those of the pooled examples, whoever holds which: scikit-learn is the oracle."""

import json
import math
import warnings
from contextlib import contextmanager
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from fma_core.errors import InvalidQuestion, InvalidStatistics
from fma_core.evaluation import Question, from_json, merge, metrics_of, statistics_of, to_json

BINS = 20
SIZES = st.integers(1, 40)


@pytest.fixture(scope="module")
def oracle():
    """The metrics of scikit-learn, which takes long to import: not while tests are collected."""
    from sklearn import metrics

    return metrics


@contextmanager
def undefined_is_zero():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of every ratio of nothing
        yield


def split_up(draw, size, *columns):
    """The same rows, dealt to up to four clients; those without any are left out."""
    owners = draw(stn.arrays(np.int64, size, elements=st.integers(0, 3)))
    return [tuple(column[owners == owner] for column in columns) for owner in np.unique(owners)]


@st.composite
def classified(draw, labels):
    size = draw(SIZES)
    places = stn.arrays(np.int64, size, elements=st.integers(0, len(labels) - 1))
    names = np.array(labels)
    return names[draw(places)], names[draw(places)]


def merged(question, clients, names):
    """Through the wire and back, in an order of their own."""
    sent = [statistics_of(question, **dict(zip(names, client, strict=True))) for client in clients]
    arrived = [from_json(question, json.loads(json.dumps(to_json(one)))) for one in reversed(sent)]
    return merge(iter(arrived))


def test_counts_are_those_of_the_examples():
    question = Question("binary", bins=2)
    found = statistics_of(question, y_true=[0, 1, 1, 0], y_pred=[0, 1, 0, 0], scores=[0.2, 1.0, 0.5, 0.49])
    assert to_json(found) == {
        "question": {"task": "binary", "labels": [0, 1], "bins": 2, "with_loss": False},
        "confusion": [[2, 0], [1, 1]],
        "positives": [[0, 1, 1]],
        "negatives": [[2, 0, 0]],
    }


@given(st.data())
def test_merged_metrics_of_classes_are_those_of_the_pooled_examples(oracle, data):
    labels = data.draw(st.sampled_from([(0, 1), (1, 0), ("a", "b"), (3, 1, 2), ("x", "y", "z", "w")]))
    question = Question("binary" if len(labels) == 2 else "multiclass", labels)
    y_true, y_pred = data.draw(classified(labels))
    clients = split_up(data.draw, len(y_true), y_true, y_pred)

    found = metrics_of(merged(question, clients, ("y_true", "y_pred")))

    with undefined_is_zero():
        for average in ("macro", "micro", "weighted"):
            scores = oracle.precision_recall_fscore_support(
                y_true, y_pred, labels=list(labels), average=average, zero_division=0
            )
            for name, expected in zip(("precision", "recall", "f1"), scores[:3], strict=True):
                assert found[f"{name}_{average}"] == pytest.approx(expected, abs=1e-9), (name, average)
        assert found["accuracy"] == pytest.approx(oracle.accuracy_score(y_true, y_pred), abs=1e-9)
        balanced = oracle.balanced_accuracy_score(y_true, y_pred)
        assert found["balanced_accuracy"] == pytest.approx(balanced, abs=1e-9)
        kappa = oracle.cohen_kappa_score(y_true, y_pred, labels=list(labels))
        assert (
            math.isnan(kappa) if found["kappa"] is None else found["kappa"] == pytest.approx(kappa, abs=1e-9)
        )
        assert found["matthews"] == pytest.approx(oracle.matthews_corrcoef(y_true, y_pred), abs=1e-9)
        assert found["confusion"] == oracle.confusion_matrix(y_true, y_pred, labels=list(labels)).tolist()


@given(st.data())
def test_areas_of_scores_on_the_edges_are_exact(oracle, data):
    size = data.draw(SIZES)
    y_true = data.draw(stn.arrays(np.int64, size, elements=st.integers(0, 1)))
    scores = data.draw(stn.arrays(np.int64, size, elements=st.integers(0, BINS))) / BINS
    clients = split_up(data.draw, size, y_true, y_true, scores)

    found = metrics_of(merged(Question("binary", bins=BINS), clients, ("y_true", "y_pred", "scores")))

    if 0 < y_true.sum() < size:
        assert found["roc_auc"] == pytest.approx(oracle.roc_auc_score(y_true, scores), abs=1e-9)
    else:
        assert found["roc_auc"] is None
    if y_true.sum():
        expected = oracle.average_precision_score(y_true, scores)
        assert found["average_precision"] == pytest.approx(expected, abs=1e-9)
    else:
        assert found["average_precision"] is None


@given(st.data())
def test_areas_of_any_scores_are_within_their_bound(oracle, data):
    size = data.draw(st.integers(2, 40))
    y_true = data.draw(stn.arrays(np.int64, size, elements=st.integers(0, 1)))
    y_true[:2] = 0, 1
    scores = data.draw(stn.arrays(np.float64, size, elements=st.floats(0, 1)))
    question = Question("binary", bins=data.draw(st.sampled_from([1, 3, 10])))
    clients = split_up(data.draw, size, y_true, y_true, scores)

    found = metrics_of(merged(question, clients, ("y_true", "y_pred", "scores")))

    for name, score in (
        ("roc_auc", oracle.roc_auc_score),
        ("average_precision", oracle.average_precision_score),
    ):
        assert abs(found[name] - score(y_true, scores)) <= found[f"{name}_error_at_most"] + 1e-12, name


def test_many_bins_bound_the_error_well():
    rng = np.random.default_rng(0)
    y_true = rng.integers(0, 2, 5000)
    scores = np.clip(rng.normal(0.4 + 0.2 * y_true, 0.15), 0, 1)
    found = metrics_of(
        statistics_of(Question("binary", bins=1000), y_true=y_true, y_pred=y_true, scores=scores)
    )
    assert found["roc_auc_error_at_most"] < 1e-3
    assert found["average_precision_error_at_most"] < 2e-3


@given(st.data())
def test_areas_of_many_classes_are_those_of_one_against_the_rest(oracle, data):
    labels = ("a", "b", "c")
    y_true = np.array([*labels, *data.draw(st.lists(st.sampled_from(labels), max_size=30))])
    shape = (len(y_true), 2)
    parts = np.sort(data.draw(stn.arrays(np.int64, shape, elements=st.integers(0, BINS))), axis=1)
    scores = np.diff(parts, axis=1, prepend=0, append=BINS) / BINS  # each row adds up to 1
    clients = split_up(data.draw, len(y_true), y_true, y_true, scores)

    question = Question("multiclass", labels, bins=BINS)
    found = metrics_of(merged(question, clients, ("y_true", "y_pred", "scores")))

    for average in ("macro", "weighted"):
        expected = oracle.roc_auc_score(y_true, scores, multi_class="ovr", average=average, labels=labels)
        assert found[f"roc_auc_{average}"] == pytest.approx(expected, abs=1e-9)
        of_each = y_true[:, None] == np.array(labels)
        expected = oracle.average_precision_score(of_each, scores, average=average)
        assert found[f"average_precision_{average}"] == pytest.approx(expected, abs=1e-9)


@given(st.data())
def test_merged_metrics_of_a_regression_are_those_of_the_pooled_examples(oracle, data):
    size = data.draw(st.integers(2, 40))
    numbers = st.floats(-100, 100, allow_subnormal=False)
    # Far from 0, where sums of squares would lose every digit.
    offset = data.draw(st.sampled_from([0.0, 1e3, 1e6]))
    y_true = data.draw(stn.arrays(np.float64, size, elements=numbers))
    y_true[:2] = -1.0, 1.0
    y_pred, losses = (data.draw(stn.arrays(np.float64, size, elements=numbers)) for _ in range(2))
    y_true, y_pred = y_true + offset, y_pred + offset
    clients = split_up(data.draw, size, y_true, y_pred, losses)

    question = Question("regression", with_loss=True)
    found = metrics_of(merged(question, clients, ("y_true", "y_pred", "losses")))

    assert found["num_examples"] == size
    for name, expected in {
        "mse": oracle.mean_squared_error(y_true, y_pred),
        "rmse": oracle.root_mean_squared_error(y_true, y_pred),
        "mae": oracle.mean_absolute_error(y_true, y_pred),
        "mean_error": float(np.mean(y_pred - y_true)),
        "r2": oracle.r2_score(y_true, y_pred),
        "loss": float(losses.mean()),
    }.items():
        assert found[name] == pytest.approx(expected, rel=1e-9, abs=1e-9), name


@pytest.mark.parametrize("error", [5e-324, 4.7e-306, 1e-200, 1e-160])
def test_errors_whose_squares_underflow_are_taken(error):
    targets = np.zeros(3)
    found = metrics_of(merged(Question("regression"), [(targets, targets + error)], ("y_true", "y_pred")))
    assert found["mae"] == pytest.approx(error)


@pytest.mark.parametrize("mean", [0.0, 1e6, -1e9, 1e11, 1e13, -1e14])
@pytest.mark.parametrize("size", [2, 3, 3000])
def test_r2_is_exact_however_far_the_targets_are_from_0(mean, size):
    rng = np.random.default_rng(size)
    y_true = mean + 3 * rng.normal(size=size)
    y_pred = y_true + rng.normal(size=size)
    targets, predictions = ([Fraction(value) for value in column.tolist()] for column in (y_true, y_pred))
    middle = sum(targets) / size
    spread = sum((target - middle) ** 2 for target in targets)
    expected = 1 - sum((a - b) ** 2 for a, b in zip(targets, predictions, strict=True)) / spread

    question = Question("regression")
    found = metrics_of(statistics_of(question, y_true=y_true, y_pred=y_pred))["r2"]
    assert found == pytest.approx(float(expected), rel=1e-14)
    cuts = np.array_split(np.arange(size), 2 if size < 10 else [1, 10, 501, 2000])
    parts = [statistics_of(question, y_true=y_true[cut], y_pred=y_pred[cut]) for cut in cuts]
    # The means of the parts are rounded to float64.
    rounded = 8 * 2.0**-53 * abs(mean) / math.sqrt(spread / size) * (1 + abs(1 - float(expected)))
    assert metrics_of(merge(parts))["r2"] == pytest.approx(float(expected), rel=1e-12, abs=rounded)


@given(st.data())
def test_order_does_not_matter_to_the_last_bit(data):
    numbers = st.floats(-1e6, 1e6, allow_subnormal=False)
    question = Question("regression")
    sent = [
        statistics_of(question, y_true=[truth, 1.0], y_pred=[guess, 0.0])
        for truth, guess in data.draw(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=8))
    ]
    again = data.draw(st.permutations(sent))
    assert metrics_of(merge(sent)) == metrics_of(merge(again))


def test_targets_that_are_all_the_same_have_no_r2():
    found = statistics_of(Question("regression"), y_true=[0.1] * 10, y_pred=[0.2] * 10)
    assert metrics_of(merge([found, found]))["r2"] is None


def test_mean_loss_is_of_examples_not_of_clients():
    question = Question("multiclass", ("a", "b", "c"), with_loss=True)
    clients = [(["a"], ["a"], [4.0]), (["b", "c", "c"], ["b", "b", "c"], [0.0, 1.0, 1.0])]
    assert metrics_of(merged(question, clients, ("y_true", "y_pred", "losses")))["loss"] == 1.5


WRONG_QUESTIONS = {
    "nothing": None,
    "no task": {"labels": [0, 1]},
    "an unknown task": {"task": "ranking"},
    "an unknown member": {"task": "binary", "bin": 3},
    "labels that are not a list": {"task": "binary", "labels": "ab"},
    "one label": {"task": "multiclass", "labels": ["a"]},
    "three labels of two": {"task": "binary", "labels": [1, 2, 3]},
    "a label twice": {"task": "multiclass", "labels": ["a", "a"]},
    "a boolean as a label": {"task": "binary", "labels": [False, True]},
    "a fraction as a label": {"task": "binary", "labels": [0.5, 1]},
    "an empty label": {"task": "binary", "labels": ["", "a"]},
    "too many labels": {"task": "multiclass", "labels": list(range(101))},
    "too many bins": {"task": "binary", "bins": 10_001},
    "too many counts": {"task": "multiclass", "labels": list(range(50)), "bins": 1000},
    "fewer bins than none": {"task": "binary", "bins": -1},
    "bins as a boolean": {"task": "binary", "bins": True},
    "labels of a regression": {"task": "regression", "labels": [0, 1]},
    "bins of a regression": {"task": "regression", "bins": 5},
    "a loss that is a word": {"task": "regression", "with_loss": "yes"},
}


@pytest.mark.parametrize("value", WRONG_QUESTIONS.values(), ids=WRONG_QUESTIONS)
def test_wrong_question_is_refused(value):
    with pytest.raises(InvalidQuestion):
        Question.from_json(value)


@pytest.mark.parametrize(
    "value",
    [
        {"task": "binary"},
        {"task": "binary", "labels": ["no", "yes"], "bins": 100, "with_loss": True},
        {"task": "multiclass", "labels": [0, 1, 2]},
        {"task": "regression"},
    ],
)
def test_question_survives_the_wire(value):
    question = Question.from_json(value)
    assert Question.from_json(json.loads(json.dumps(question.to_json()))) == question


BINARY = Question("binary", bins=2, with_loss=True)
REGRESSION = Question("regression")
SENT = to_json(statistics_of(BINARY, y_true=[0, 1], y_pred=[0, 1], scores=[0, 1], losses=[1, 2]))
SUMS = to_json(statistics_of(REGRESSION, y_true=[1.0, 2.0], y_pred=[1.5, 1.0]))

WRONG_STATISTICS = {
    "nothing": (BINARY, None),
    "another question": (Question("binary", bins=2), SENT),
    "labels the other way round": (Question("binary", (1, 0), 2, True), SENT),
    "a member less": (BINARY, {k: v for k, v in SENT.items() if k != "negatives"}),
    "a member more": (BINARY, {**SENT, "accuracy": 1.0}),
    "a row less": (BINARY, {**SENT, "confusion": [[1, 0]]}),
    "a column more": (BINARY, {**SENT, "confusion": [[1, 0, 0], [0, 1, 0]]}),
    "a negative count": (BINARY, {**SENT, "confusion": [[2, -1], [0, 1]]}),
    "a fraction": (BINARY, {**SENT, "confusion": [[1.0, 0], [0, 1]]}),
    "a boolean": (BINARY, {**SENT, "confusion": [[True, 0], [0, 1]]}),
    "a huge count": (BINARY, {**SENT, "confusion": [[2**41, 0], [0, 1]]}),
    "huge counts together": (BINARY, {**SENT, "confusion": [[2**40, 0], [0, 1]]}),
    "no examples": (BINARY, {**SENT, "confusion": [[0, 0], [0, 0]]}),
    "positives that are not there": (BINARY, {**SENT, "positives": [[0, 1, 1]]}),
    "negatives that are not there": (BINARY, {**SENT, "negatives": [[0, 0, 0]]}),
    "a loss that is NaN": (BINARY, {**SENT, "loss": math.nan}),
    "a loss that is endless": (BINARY, {**SENT, "loss": math.inf}),
    "a loss that is a word": (BINARY, {**SENT, "loss": "1"}),
    "a loss of hundreds of digits": (BINARY, {**SENT, "loss": 10**400}),
    "no targets": (REGRESSION, {**SUMS, "num_examples": 0}),
    "a square below 0": (REGRESSION, {**SUMS, "squared_errors": -1.0}),
    "a spread below 0": (REGRESSION, {**SUMS, "target_squares": -1.0}),
    "errors above their size": (REGRESSION, {**SUMS, "errors": 100.0}),
    "sizes that no squares have": (REGRESSION, {**SUMS, "absolute_errors": 100.0}),
}


@pytest.mark.parametrize(("question", "value"), WRONG_STATISTICS.values(), ids=WRONG_STATISTICS)
def test_wrong_statistics_are_refused(question, value):
    with pytest.raises(InvalidStatistics):
        from_json(question, value)


SCORED = Question("multiclass", ("a", "b", "c"), bins=5)
WRONG_EXAMPLES = {
    "none": (BINARY, {"y_true": [], "y_pred": []}),
    "another number of predictions": (Question("binary"), {"y_true": [0, 1], "y_pred": [0]}),
    "an unknown label": (Question("binary"), {"y_true": [0, 1], "y_pred": [0, 2]}),
    "labels of two kinds": (Question("binary"), {"y_true": np.array([0, "a"], object), "y_pred": [0, 1]}),
    "a table of labels": (Question("binary"), {"y_true": [[0, 1]], "y_pred": [[0, 1]]}),
    "scores that nobody asked for": (
        Question("binary"),
        {"y_true": [0], "y_pred": [0], "scores": [0.5]},
    ),
    "no scores": (SCORED, {"y_true": ["a"], "y_pred": ["a"]}),
    "scores of one label": (SCORED, {"y_true": ["a"], "y_pred": ["a"], "scores": [0.5]}),
    "scores above 1": (SCORED, {"y_true": ["a"], "y_pred": ["a"], "scores": [[0.5, 2, 0]]}),
    "scores that are NaN": (SCORED, {"y_true": ["a"], "y_pred": ["a"], "scores": [[0.5, math.nan, 0]]}),
    "losses that nobody asked for": (Question("binary"), {"y_true": [0], "y_pred": [0], "losses": [1.0]}),
    "scores of a regression": (REGRESSION, {"y_true": [0], "y_pred": [0], "scores": [0.5]}),
    "words": (REGRESSION, {"y_true": ["a"], "y_pred": ["b"]}),
    "NaN": (REGRESSION, {"y_true": [1.0], "y_pred": [math.nan]}),
    "numbers whose squares overflow": (REGRESSION, {"y_true": [1e200], "y_pred": [0.0]}),
}


@pytest.mark.parametrize(("question", "examples"), WRONG_EXAMPLES.values(), ids=WRONG_EXAMPLES)
def test_wrong_examples_are_refused(question, examples):
    with pytest.raises(InvalidStatistics):
        statistics_of(question, **examples)


def test_nothing_cannot_be_merged():
    with pytest.raises(InvalidStatistics, match="no statistics"):
        merge([])


def test_answers_to_two_questions_cannot_be_merged():
    one = statistics_of(Question("binary"), y_true=[0], y_pred=[0])
    other = statistics_of(Question("binary", (1, 0)), y_true=[0], y_pred=[0])
    with pytest.raises(InvalidStatistics, match="one question"):
        merge([one, other])
