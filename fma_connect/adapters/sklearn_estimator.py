"""The coefficients of scikit-learn's linear models and perceptrons.

    arrays = sklearn_estimator.to_arrays(fitted)
    sklearn_estimator.from_arrays(arrays, into=SGDClassifier(), classes=[0, 1, 2])

The arrays have scikit-learn's own names: "coef_" and "intercept_", or "coefs_.0", "intercepts_.0", ... for an MLP.
Class labels are not weights and are not included: a mean of labels has no meaning.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fma_connect.adapters.matching import native_copy, refuse_other_names, refuse_other_shape
from fma_connect.exceptions import InvalidArgument
from fma_connect.pulled import Arrays

__all__ = ["from_arrays", "to_arrays"]

# By name: a kernel SVC also has a coef_, but does not predict with it.
LINEAR = (
    "linear_model.LinearRegression", "linear_model.Ridge", "linear_model.Lasso", "linear_model.ElasticNet",
    "linear_model.LogisticRegression", "linear_model.RidgeClassifier", "linear_model.Perceptron",
    "linear_model.SGDClassifier", "linear_model.SGDRegressor", "svm.LinearSVC", "svm.LinearSVR",
)  # fmt: skip
PERCEPTRONS = ("neural_network.MLPClassifier", "neural_network.MLPRegressor")

Estimator = TypeVar("Estimator")
Labels = Sequence[Any] | npt.NDArray[Any]


def to_arrays(estimator: Any) -> dict[str, npt.NDArray[Any]]:
    """Copies of the fitted coefficients. Raises InvalidArgument for an estimator not fitted or not supported."""
    if _is_one_of(estimator, LINEAR):
        _refuse_unfitted(estimator, "coef_")
        return {
            "coef_": native_copy(_dense_coefficients(estimator)),
            "intercept_": native_copy(estimator.intercept_),
        }
    if _is_one_of(estimator, PERCEPTRONS):
        _refuse_unfitted(estimator, "coefs_")
        return {
            f"{kind}.{layer}": native_copy(array)
            for kind in ("coefs_", "intercepts_")
            for layer, array in enumerate(getattr(estimator, kind))
        }
    raise InvalidArgument(f"{type(estimator).__name__} is not supported; known: {_known()}")


def from_arrays(arrays: Arrays, *, into: Estimator, classes: Labels | None = None) -> Estimator:
    """Put coefficients into an estimator, fitted or not, so that it predicts with them; return the estimator.

    classes: the labels, for a classifier that is not fitted. A fitted estimator keeps its own labels, and the arrays
    must have its shapes. `partial_fit` and `warm_start` continue from these coefficients.
    """
    estimator: Any = into
    if _is_one_of(estimator, LINEAR):
        _fill_linear(estimator, arrays, _labels(estimator, classes))
    elif _is_one_of(estimator, PERCEPTRONS):
        _fill_perceptron(estimator, arrays, _labels(estimator, classes))
    else:
        raise InvalidArgument(f"{type(estimator).__name__} is not supported; known: {_known()}")
    return into


def _dense_coefficients(estimator: Any) -> Any:
    if not hasattr(estimator.coef_, "toarray"):
        return estimator.coef_
    # sparsify() has made a sparse matrix; with scikit-learn 1.5 one row of flat coefficients, too.
    dense = estimator.coef_.toarray()
    return dense.ravel() if _is_one_of(estimator, ("linear_model.SGDRegressor",)) else dense


def _fill_linear(estimator: Any, arrays: Arrays, labels: npt.NDArray[Any] | None) -> None:
    refuse_other_names(arrays, {"coef_", "intercept_"}, of=f"a {type(estimator).__name__}")
    coef, intercept = arrays["coef_"], arrays["intercept_"]
    if getattr(estimator, "coef_", None) is not None:
        _refuse_other_shapes(arrays, to_arrays(estimator), estimator)
    elif labels is not None:
        rows = 1 if len(labels) == 2 else len(labels)
        # For two classes, RidgeClassifier keeps one flat row.
        is_flat = rows == 1 and coef.ndim == 1 and _is_one_of(estimator, ("linear_model.RidgeClassifier",))
        fits = is_flat or (coef.ndim == 2 and coef.shape[0] == rows)
        _refuse_unless(fits, "coef_", coef, f"({rows}, features)", estimator)
        _refuse_unless(intercept.shape in ((rows,), ()), "intercept_", intercept, f"({rows},)", estimator)
    else:
        _refuse_unless(coef.ndim in (1, 2), "coef_", coef, "(features,) or (targets, features)", estimator)
    if labels is not None:
        _set_labels(estimator, labels, negative_label=-1)
    # A 0-d array becomes a number, as LinearRegression's intercept_ is.
    estimator.coef_, estimator.intercept_ = native_copy(coef), native_copy(intercept)[()]
    estimator.n_features_in_ = int(coef.shape[-1])
    if (
        _is_one_of(estimator, ("linear_model.SGDClassifier", "linear_model.SGDRegressor"))
        and estimator.average
    ):
        _restart_averaging(estimator)


def _restart_averaging(estimator: Any) -> None:
    # Averaged SGD keeps two sets of coefficients; both start from the received ones.
    estimator._standard_coef, estimator._standard_intercept = estimator.coef_, estimator.intercept_
    estimator._average_coef = estimator.coef_.copy()
    estimator._average_intercept = estimator.intercept_.copy()


def _fill_perceptron(estimator: Any, arrays: Arrays, labels: npt.NDArray[Any] | None) -> None:
    layers = len(arrays) // 2
    names = {f"{kind}.{layer}" for kind in ("coefs_", "intercepts_") for layer in range(max(layers, 1))}
    refuse_other_names(arrays, names, of=f"a {type(estimator).__name__} of {layers} layers")
    coefs = [native_copy(arrays[f"coefs_.{layer}"]) for layer in range(layers)]
    intercepts = [native_copy(arrays[f"intercepts_.{layer}"]) for layer in range(layers)]
    if hasattr(estimator, "coefs_"):
        _refuse_other_shapes(arrays, to_arrays(estimator), estimator)
    else:
        _refuse_other_layers(estimator, coefs, intercepts, labels)
        _start_perceptron(estimator, coefs, labels)
    estimator.coefs_, estimator.intercepts_ = coefs, intercepts
    _forget_best(estimator)


def _start_perceptron(estimator: Any, coefs: list[npt.NDArray[Any]], labels: npt.NDArray[Any] | None) -> None:
    # Set all attributes that fit() sets before its first step: predict and partial_fit need them.
    estimator.n_features_in_, estimator.n_outputs_ = int(coefs[0].shape[0]), int(coefs[-1].shape[1])
    estimator.n_layers_ = len(coefs) + 1
    estimator.n_iter_, estimator.t_ = 0, 0
    estimator.loss_curve_ = []
    estimator.validation_scores_ = [] if estimator.early_stopping else None
    if labels is None:
        estimator.out_activation_ = "exp" if getattr(estimator, "loss", "") == "poisson" else "identity"
    else:
        _set_labels(estimator, labels, negative_label=0)
        estimator.out_activation_ = "softmax" if len(labels) > 2 else "logistic"


def _forget_best(estimator: Any) -> None:
    # With early stopping, the next fit() would otherwise return to the best weights of before.
    estimator._no_improvement_count = 0
    if estimator.early_stopping:
        estimator.best_loss_, estimator.best_validation_score_ = None, -np.inf
    else:
        estimator.best_loss_, estimator.best_validation_score_ = np.inf, None


def _refuse_other_layers(
    estimator: Any,
    coefs: list[npt.NDArray[Any]],
    intercepts: list[npt.NDArray[Any]],
    labels: npt.NDArray[Any] | None,
) -> None:
    hidden = [int(width) for width in np.atleast_1d(estimator.hidden_layer_sizes)]
    widths = [None, *hidden, None if labels is None else (1 if len(labels) == 2 else len(labels))]
    if len(coefs) != len(widths) - 1:
        raise InvalidArgument(
            f"the arrays have {len(coefs)} layers; hidden_layer_sizes={tuple(hidden)} needs {len(widths) - 1}"
        )
    for layer, (coef, intercept) in enumerate(zip(coefs, intercepts, strict=True)):
        into, out = widths[layer], widths[layer + 1]
        expected = f"({'inputs' if into is None else into}, {'outputs' if out is None else out})"
        fits = coef.ndim == 2 and into in (None, coef.shape[0]) and out in (None, coef.shape[1])
        _refuse_unless(fits, f"coefs_.{layer}", coef, expected, estimator)
        refuse_other_shape(f"intercepts_.{layer}", intercept.shape, (coef.shape[1],), of="its layer")


def _labels(estimator: Any, classes: Labels | None) -> npt.NDArray[Any] | None:
    base: Any = importlib.import_module("sklearn.base")
    if not base.is_classifier(estimator):
        if classes is not None:
            raise InvalidArgument(f"{type(estimator).__name__} is no classifier; it has no classes")
        return None
    own = getattr(estimator, "classes_", None)
    if classes is None:
        if own is None:
            raise InvalidArgument(f"{type(estimator).__name__} is not fitted: give its labels with classes=")
        return np.asarray(own)
    labels = np.unique(np.asarray(classes))
    if len(labels) < 2:
        raise InvalidArgument(f"a classifier needs at least two classes; got {labels.tolist()}")
    if own is not None and not np.array_equal(own, labels):
        raise InvalidArgument(f"the estimator was fitted to classes {own.tolist()}; got {labels.tolist()}")
    return labels


def _set_labels(estimator: Any, labels: npt.NDArray[Any], *, negative_label: int) -> None:
    if _is_one_of(estimator, ("linear_model.RidgeClassifier", *PERCEPTRONS)):
        preprocessing: Any = importlib.import_module("sklearn.preprocessing")
        estimator._label_binarizer = preprocessing.LabelBinarizer(neg_label=negative_label).fit(labels)
    # Older versions of RidgeClassifier derive classes_ from the binarizer.
    if not isinstance(getattr(type(estimator), "classes_", None), property):
        estimator.classes_ = labels


def _refuse_other_shapes(arrays: Arrays, own: Arrays, estimator: Any) -> None:
    of = f"the fitted {type(estimator).__name__}"
    refuse_other_names(arrays, own, of=of)
    for name in sorted(own):
        refuse_other_shape(name, arrays[name].shape, own[name].shape, of=of)


def _refuse_unless(fits: bool, name: str, array: npt.NDArray[Any], expected: str, estimator: Any) -> None:
    if not fits:
        raise InvalidArgument(
            f"array {name!r} has shape {array.shape}; a {type(estimator).__name__} needs {expected}"
        )


def _refuse_unfitted(estimator: Any, attribute: str) -> None:
    if getattr(estimator, attribute, None) is None:
        raise InvalidArgument(f"{type(estimator).__name__} is not fitted: it has no {attribute}")


def _is_one_of(estimator: Any, names: tuple[str, ...]) -> bool:
    for name in names:
        folder, _, kind = name.partition(".")
        if isinstance(estimator, getattr(importlib.import_module(f"sklearn.{folder}"), kind)):
            return True
    return False


def _known() -> str:
    return ", ".join(name.partition(".")[2] for name in (*LINEAR, *PERCEPTRONS))
