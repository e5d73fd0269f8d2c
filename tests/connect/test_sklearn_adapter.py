import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    Perceptron,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.svm import SVC, LinearSVC, LinearSVR

from fma_connect.adapters.sklearn_estimator import from_arrays, to_arrays
from fma_core.arrays.codecs import safetensors

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(5)
X = RNG.normal(size=(60, 4))
Y = {
    "two": (X[:, 0] > 0).astype(int),
    "three": np.digitize(X[:, 0], [-0.5, 0.5]),
    "names": np.array(["no", "yes"])[(X[:, 1] > 0).astype(int)],
    "number": X @ [1.0, 2.0, -1.0, 0.5] + 3,
    "numbers": X @ RNG.normal(size=(4, 2)) + 3,
}
CLASSIFIERS = [
    LogisticRegression(),
    LogisticRegression(fit_intercept=False),
    RidgeClassifier(),
    RidgeClassifier(fit_intercept=False),
    Perceptron(),
    SGDClassifier(loss="log_loss", random_state=0),
    SGDClassifier(average=True, random_state=0),
    LinearSVC(),
    MLPClassifier((5, 3), max_iter=20, random_state=0),
    MLPClassifier(7, solver="lbfgs", max_iter=20, random_state=0),
]
REGRESSORS = [
    LinearRegression(),
    LinearRegression(fit_intercept=False),
    Ridge(),
    Lasso(),
    ElasticNet(),
    LinearSVR(),
    SGDRegressor(random_state=0),
    SGDRegressor(average=True, random_state=0),
    MLPRegressor(hidden_layer_sizes=(5,), max_iter=20, random_state=0),
]
CASES = [(model, task) for model in CLASSIFIERS for task in ("two", "three", "names")]
CASES += [(model, "number") for model in REGRESSORS]
CASES += [
    (model, "numbers")
    for model in (LinearRegression(), Ridge(), MLPRegressor(hidden_layer_sizes=(5,), max_iter=9))
]


def fitted(model: Any, task: str) -> Any:
    return clone(model).fit(X, Y[task])


@pytest.mark.parametrize(("model", "task"), CASES, ids=lambda part: str(part))
def test_fresh_estimator_predicts_as_the_fitted_one(model: Any, task: str) -> None:
    source = fitted(model, task)
    classes = getattr(source, "classes_", None)

    arrays = safetensors.decode(safetensors.encode(to_arrays(source)))
    fresh = from_arrays(arrays, into=clone(model), classes=classes)

    assert np.array_equal(fresh.predict(X), source.predict(X))
    for name in ("decision_function", "predict_proba"):
        if hasattr(source, name):
            assert np.array_equal(getattr(fresh, name)(X), getattr(source, name)(X))
    back = to_arrays(fresh)
    assert list(back) == list(to_arrays(source))
    assert all(back[name].dtype == array.dtype for name, array in arrays.items())
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())


@pytest.mark.parametrize(("model", "task"), CASES, ids=lambda part: str(part))
def test_fitted_estimator_takes_other_coefficients(model: Any, task: str) -> None:
    source, target = fitted(model, task), clone(model).fit(-X[::-1], Y[task])

    from_arrays(to_arrays(source), into=target)

    assert np.array_equal(target.predict(X), source.predict(X))


TRAINING_ON = [
    (SGDClassifier(random_state=0), "three"),
    (SGDClassifier(average=True, random_state=0), "two"),
    (SGDRegressor(random_state=0), "number"),
    (SGDRegressor(average=True, random_state=0), "number"),
    (Perceptron(), "names"),
    (MLPClassifier((5,), random_state=0), "three"),
    (MLPClassifier((5,), random_state=0), "names"),
    (MLPClassifier((5,), random_state=0, solver="sgd"), "two"),
    (MLPRegressor(hidden_layer_sizes=(5,), random_state=0), "number"),
]


@pytest.mark.parametrize(("model", "task"), TRAINING_ON, ids=lambda part: str(part))
def test_training_goes_on_from_the_received_coefficients(model: Any, task: str) -> None:
    source = fitted(model, task)
    target = from_arrays(to_arrays(source), into=clone(model), classes=getattr(source, "classes_", None))
    received = to_arrays(target)

    target.partial_fit(X[:5], Y[task][:5])

    moved = to_arrays(target)
    step = max(float(np.abs(moved[name] - received[name]).max()) for name in moved)
    start = max(float(np.abs(received[name]).max()) for name in moved)
    assert 0 <= step < start
    assert (
        any(not np.array_equal(moved[name], received[name]) for name in moved)
        or model.__class__ is Perceptron
    )


def test_warm_start_goes_on_from_the_received_coefficients() -> None:
    source = LogisticRegression(max_iter=500, tol=1e-8).fit(X, Y["three"])
    target = from_arrays(
        to_arrays(source), into=LogisticRegression(warm_start=True, max_iter=3), classes=source.classes_
    )

    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        target.fit(X, Y["three"])

    assert np.allclose(target.coef_, source.coef_, atol=1e-3)


def test_arrays_are_copies_both_ways() -> None:
    source = fitted(Ridge(), "number")
    arrays = to_arrays(source)
    for array in arrays.values():
        array.flags.writeable = False
    target = from_arrays(arrays, into=Ridge())

    target.coef_ += 1

    assert not np.array_equal(target.coef_, source.coef_)
    assert np.array_equal(arrays["coef_"], source.coef_)


@pytest.mark.parametrize("model", [KMeans(), SVC(kernel="linear"), object()])
def test_unknown_kind_is_refused_with_the_known_ones(model: Any) -> None:
    with pytest.raises(ValueError, match=r"is not supported; known: LinearRegression, .*MLPRegressor"):
        to_arrays(model)
    with pytest.raises(ValueError, match="is not supported"):
        from_arrays({"coef_": np.ones((1, 4))}, into=model)


@pytest.mark.parametrize("model", [Ridge(), MLPClassifier()])
def test_unfitted_estimator_has_nothing_to_give(model: Any) -> None:
    with pytest.raises(ValueError, match="is not fitted"):
        to_arrays(model)


COEFFICIENTS = {"coef_": np.ones((3, 4)), "intercept_": np.ones(3)}
LAYERS = {
    "coefs_.0": np.ones((4, 5)),
    "coefs_.1": np.ones((5, 3)),
    "intercepts_.0": np.ones(5),
    "intercepts_.1": np.ones(3),
}
MLP = MLPClassifier((5,))


@pytest.mark.parametrize(
    ("model", "arrays", "classes", "why"),
    [
        (SGDClassifier(), COEFFICIENTS, None, "is not fitted: give its labels with classes="),
        (SGDClassifier(), COEFFICIENTS, [1], "at least two classes"),
        (
            SGDClassifier(),
            COEFFICIENTS,
            [0, 1],
            r"'coef_' has shape \(3, 4\); a SGDClassifier needs \(1, features\)",
        ),
        (
            SGDClassifier(),
            {**COEFFICIENTS, "intercept_": np.ones(2)},
            [0, 1, 2],
            r"'intercept_' has shape \(2,\)",
        ),
        (SGDClassifier(), {"coef_": np.ones((3, 4))}, [0, 1, 2], "'intercept_' is missing"),
        (SGDClassifier(), {**COEFFICIENTS, "x": np.ones(1)}, [0, 1, 2], "'x' is unknown"),
        (Ridge(), COEFFICIENTS, [0, 1, 2], "is no classifier"),
        (Ridge(), {"coef_": np.ones(()), "intercept_": np.ones(())}, None, "'coef_' has shape"),
        (
            fitted(Ridge(), "number"),
            COEFFICIENTS,
            None,
            r"'coef_' has shape \(3, 4\); the fitted Ridge has \(4,\)",
        ),
        (fitted(SGDClassifier(), "three"), COEFFICIENTS, [0, 1, 7], r"fitted to classes \[0, 1, 2\]; got"),
        (MLP, {}, [0, 1, 2], "'coefs_.0' is missing"),
        (MLP, {"coefs_.0": LAYERS["coefs_.0"]}, [0, 1, 2], "'intercepts_.0' is missing"),
        (MLPClassifier((5, 5)), LAYERS, [0, 1, 2], r"have 2 layers; hidden_layer_sizes=\(5, 5\) needs 3"),
        (MLPClassifier((6,)), LAYERS, [0, 1, 2], r"'coefs_.0' has shape \(4, 5\); .* needs \(inputs, 6\)"),
        (MLP, LAYERS, [0, 1], r"'coefs_.1' has shape \(5, 3\); a MLPClassifier needs \(5, 1\)"),
        (
            MLP,
            {**LAYERS, "intercepts_.1": np.ones(4)},
            [0, 1, 2],
            r"'intercepts_.1' has shape \(4,\); its layer",
        ),
        (MLP, {**LAYERS, "coefs_.0": np.ones(4)}, [0, 1, 2], r"'coefs_.0' has shape \(4,\)"),
    ],
)
def test_arrays_that_do_not_fit_are_told_by_name(
    model: Any, arrays: dict[str, np.ndarray], classes: list[int] | None, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        from_arrays(
            arrays, into=clone(model) if not hasattr(model, "n_features_in_") else model, classes=classes
        )


def test_classes_may_be_given_in_any_order() -> None:
    model = from_arrays(COEFFICIENTS, into=SGDClassifier(), classes=["c", "a", "b", "a"])

    assert model.classes_.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("model", "y"),
    [
        (SGDClassifier(), Y["two"]),
        (Perceptron(), Y["three"]),
        (LogisticRegression(), Y["three"]),
        (SGDRegressor(), Y["number"]),
    ],
    ids=lambda part: type(part).__name__,
)
def test_sparse_coefficients_are_sent_as_dense_ones(model: Any, y: Any) -> None:
    estimator = clone(model).fit(X, y)
    dense = to_arrays(estimator)
    estimator.sparsify()

    sparse = to_arrays(estimator)
    again = from_arrays({"coef_": dense["coef_"] * 2, "intercept_": dense["intercept_"]}, into=estimator)

    np.testing.assert_array_equal(sparse["coef_"], dense["coef_"])
    np.testing.assert_array_equal(to_arrays(again)["coef_"], dense["coef_"] * 2)
    again.predict(X)


@pytest.mark.parametrize(
    ("model", "y"),
    [
        (MLPClassifier((6,), early_stopping=True, warm_start=True, max_iter=3), Y["two"]),
        (MLPClassifier((6,), early_stopping=True, warm_start=True, max_iter=3), Y["three"]),
        (
            MLPRegressor(hidden_layer_sizes=(6,), early_stopping=True, warm_start=True, max_iter=3),
            Y["number"],
        ),
        (MLPClassifier((6,), early_stopping=True, max_iter=3), Y["two"]),
        (SGDClassifier(early_stopping=True, warm_start=True, max_iter=3), Y["three"]),
        (SGDClassifier(early_stopping=True, warm_start=True, average=True, max_iter=3), Y["two"]),
    ],
    ids=lambda part: type(part).__name__,
)
def test_estimator_with_early_stopping_goes_on_training(model: Any, y: Any) -> None:
    arrays = to_arrays(clone(model).fit(X, y))
    labels = {} if y.dtype == float else {"classes": np.unique(y)}

    fresh = from_arrays(arrays, into=clone(model), **labels).fit(X, y)
    from_arrays(arrays, into=fresh).fit(X, y)

    assert np.isfinite(fresh.predict(X)).all()


def test_early_stopping_does_not_return_to_the_best_weights_of_before() -> None:
    model = MLPClassifier((6,), early_stopping=True, warm_start=True, max_iter=300, random_state=1)
    estimator = model.fit(X, Y["two"])
    received = {name: np.full_like(array, 1e-3) for name, array in to_arrays(estimator).items()}
    estimator.max_iter = 1

    from_arrays(received, into=estimator).fit(X, Y["two"])

    assert all(abs(array - 1e-3).max() < 0.1 for array in to_arrays(estimator).values())
