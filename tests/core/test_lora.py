"""LoRA: the published model is the mean of the clients' models, which the means of A and of B alone are not."""

import numpy as np
import pytest

from fma_core.aggregation.aggregators import FedExLora, Mean
from fma_core.aggregation.stages import Exclude, Only
from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.dtypes import NUMPY_DTYPES
from fma_core.arrays.policies import ArrayPolicies
from fma_core.arrays.spec import Spec
from fma_core.engine import Serial, Threads
from fma_core.errors import InvalidStrategy
from fma_core.in_memory import fold_arrays
from tests.core.rounds import Rounds, normal

LAYERS = {"q": (30, 20, 4), "v": (7, 9, 2)}  # out, in, rank
EXAMPLES = [5, 0, 2, 11]


def adapters(seed, dtype=np.float64, layers=LAYERS):
    arrays = {}
    for i, (layer, (num_out, num_in, rank)) in enumerate(layers.items()):
        arrays[f"{layer}.lora_A.weight"] = normal(100 * seed + i, rank, num_in).astype(dtype)
        arrays[f"{layer}.lora_B.weight"] = normal(200 * seed + i, num_out, rank).astype(dtype)
    return arrays


def whole_model(dtype=np.float64, layers=LAYERS):
    bases = {
        f"{layer}.base_layer.weight": normal(i, num_out, num_in).astype(dtype)
        for i, (layer, (num_out, num_in, _)) in enumerate(layers.items())
    }
    return {**adapters(0, dtype, layers), **bases, "head": normal(7, 3).astype(dtype), "n": np.array(4)}


def sent_by(seed, dtype=np.float64, layers=LAYERS):
    return {**adapters(seed, dtype, layers), "head": normal(seed, 3).astype(dtype), "n": np.array(seed)}


SENT = [sent_by(seed) for seed in range(1, 5)]


def effective(model, arrays, layer, scaling):
    """The matrix that a layer multiplies by: W + scaling · B A."""
    product = arrays[f"{layer}.lora_B.weight"] @ arrays[f"{layer}.lora_A.weight"]
    return model[f"{layer}.base_layer.weight"] + scaling * product


@pytest.mark.parametrize("scaling", [1.0, 0.25, 8.0])
def test_fedex_lora_publishes_the_mean_of_the_clients_models(scaling, tmp_path):
    rounds = Rounds(tmp_path, Strategy(FedExLora(scaling=scaling)), whole_model())
    for _ in range(3):
        before = rounds.model
        after = rounds.play(SENT, num_examples=EXAMPLES)
        for layer in LAYERS:
            expected = np.average(
                [effective(before, sent, layer, scaling) for sent in SENT], axis=0, weights=EXAMPLES
            )
            np.testing.assert_allclose(
                effective(after, after, layer, scaling), expected, rtol=1e-12, atol=1e-12
            )


@pytest.mark.parametrize("policies", [{}, {"*lora_A*": "averaged"}, {"*lora_B*": "newest"}])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_base_weights_take_what_the_rounding_of_the_adapters_leaves(dtype, policies, tmp_path):
    # Rounded to float16 the means are a thousandth off; exact to float64 is what is published as a whole.
    narrow = {name: array.astype(NUMPY_DTYPES[dtype]) for name, array in adapters(0).items()}
    start = {**whole_model(), **narrow}
    sent = [
        {name: array.astype(start[name].dtype) for name, array in sent_by(seed).items()}
        for seed in range(1, 5)
    ]
    strategy = Strategy(FedExLora(scaling=0.3), policies=ArrayPolicies.of(policies))
    after = Rounds(tmp_path, strategy, start).play(sent, num_examples=EXAMPLES)
    start, after, *sent = [
        {name: array.astype(np.float64) for name, array in arrays.items()} for arrays in (start, after, *sent)
    ]
    for layer in LAYERS:
        expected = np.average([effective(start, each, layer, 0.3) for each in sent], axis=0, weights=EXAMPLES)
        np.testing.assert_allclose(effective(after, after, layer, 0.3), expected, rtol=0, atol=1e-13)


def test_the_means_alone_are_far_from_it(tmp_path):
    start = whole_model()
    rounds = Rounds(tmp_path, Strategy(Mean(), stages=(Exclude(("*.base_layer.*",)),)), start)
    after = rounds.play(SENT, num_examples=EXAMPLES)
    expected = np.average([effective(start, sent, "q", 1) for sent in SENT], axis=0, weights=EXAMPLES)
    assert np.abs(effective(after, after, "q", 1) - expected).max() > 0.1


def test_everything_else_gets_the_mean(tmp_path):
    after = Rounds(tmp_path, Strategy(FedExLora()), whole_model()).play(SENT, num_examples=EXAMPLES)
    for name in ("q.lora_A.weight", "q.lora_B.weight", "v.lora_A.weight", "v.lora_B.weight", "head"):
        expected = np.average([sent[name] for sent in SENT], axis=0, weights=EXAMPLES)
        np.testing.assert_allclose(after[name], expected, rtol=1e-12, atol=1e-14)
    assert after["n"] == 3  # (1·5 + 3·2 + 4·11) / 18


def test_base_weights_are_not_sent():
    spec = Spec.of(whole_model())
    strategy = Strategy(FedExLora())
    assert strategy.update_spec(spec) == Spec.of(SENT[0])
    assert {name for name, role in strategy.roles(spec).items() if role == "computed"} == {
        "q.base_layer.weight",
        "v.base_layer.weight",
    }
    assert strategy.needs_start


def test_updates_from_older_models_count_with_what_they_sent(tmp_path):
    rounds = Rounds(tmp_path, Strategy(FedExLora()), whole_model())
    rounds.play(SENT[:2], num_examples=EXAMPLES[:2])
    assert rounds.fold(SENT, num_examples=EXAMPLES, bases=[0, 1, 0, 1]) == rounds.fold(
        SENT, num_examples=EXAMPLES
    )


def test_many_blocks_executors_and_retries_give_the_same_bytes(tmp_path):
    layers = {"wide": (300, 1000, 8), "tall": (4001, 3, 2)}
    rounds = Rounds(tmp_path, Strategy(FedExLora()), whole_model(np.float32, layers))
    sent = [sent_by(seed, np.float32, layers) for seed in range(1, 4)]
    found = {
        rounds.fold(sent, num_examples=[1, 2, 3], executor=executor, block_columns=width)
        for executor, width in [(Serial(), None), (Serial(), 100), (Threads(3), None), (Threads(2), 10**7)]
    }
    assert len(found) == 1
    before, after = rounds.model, rounds.play(sent, num_examples=[1, 2, 3])
    for layer in layers:
        expected = np.average([effective(before, s, layer, 1) for s in sent], axis=0, weights=[1, 2, 3])
        np.testing.assert_allclose(effective(after, after, layer, 1), expected, rtol=1e-4, atol=1e-4)


def test_names_as_peft_keeps_them_in_memory(tmp_path):
    def renamed(arrays):
        return {
            name.replace("lora_A.", "lora_A.default.").replace("lora_B.", "lora_B.default."): array
            for name, array in arrays.items()
        }

    rule = FedExLora(a=".lora_A.default.", b=".lora_B.default.")
    rounds = Rounds(tmp_path, Strategy(rule), renamed(whole_model()))
    found = rounds.play([renamed(sent) for sent in SENT], num_examples=EXAMPLES)
    plain = Rounds(tmp_path, Strategy(FedExLora()), whole_model()).play(SENT, num_examples=EXAMPLES)
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in renamed(plain).items()
    }


def test_personal_arrays_stay_beside_computed_ones(tmp_path):
    start = whole_model()
    rounds = Rounds(tmp_path, Strategy(FedExLora(), stages=(Exclude(("head",)),)), start)
    sent = [{name: array for name, array in update.items() if name != "head"} for update in SENT]
    assert rounds.play(sent, num_examples=EXAMPLES)["head"].tobytes() == start["head"].tobytes()


def test_an_update_whose_product_overflows_is_left_out():
    start = whole_model(np.float16)
    sent, other = sent_by(1, np.float16), sent_by(2, np.float16)
    sent["q.lora_B.weight"][:], sent["q.lora_A.weight"][:] = 60000, 60000
    found, expected = fold_arrays(FedExLora(), [sent, other], start), fold_arrays(FedExLora(), [other], start)
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in expected.items()
    }


def changed(name, array):
    """The whole model with another array of this name, or without it when the array is None."""
    return {key: value for key, value in {**whole_model(), name: array}.items() if value is not None}


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"w": np.ones(3)}, "no array's name contains '.lora_A.'"),
        (changed("q.lora_B.weight", None), "'q.lora_A.weight' needs a B; 'q.lora_B.weight' is missing"),
        (changed("q.lora_A.weight", None), "'q.lora_B.weight' needs an A; 'q.lora_A.weight' is missing"),
        (changed("q.base_layer.weight", None), "needs base weights; 'q.base_layer.weight' is missing"),
        (changed("q.base_layer.weight", np.ones((20, 30))), r"must have the shape of 'q.base_layer.weight'"),
        (changed("q.lora_B.weight", np.ones((30, 5))), r"\(30, 5\) and 'q.lora_A.weight' \(4, 20\)"),
        (changed("q.lora_A.weight", np.ones(20)), "the product of"),
        (
            changed("q.base_layer.weight", np.ones((30, 20), np.int8)),
            "must be of floating-point numbers, found int8",
        ),
    ],
)
def test_models_without_adapters_that_fit_are_refused(model, sentence):
    with pytest.raises(InvalidStrategy, match=sentence) as raised:
        Strategy(FedExLora()).update_spec(Spec.of(model))
    assert raised.value.facts["field"] == "aggregator"


@pytest.mark.parametrize("pattern", ["*.lora_A.*", "q.lora_B.weight"])
def test_stages_cannot_leave_out_what_base_weights_are_computed_from(pattern):
    strategy = Strategy(FedExLora(), stages=(Exclude((pattern,)),))
    with pytest.raises(InvalidStrategy, match="which must be sent") as raised:
        strategy.roles(Spec.of(whole_model()))
    assert raised.value.facts["field"] == "stages"


def test_frozen_a_is_exact_with_the_plain_mean(tmp_path):
    start = whole_model()
    rounds = Rounds(tmp_path, Strategy(Mean(), stages=(Only(("*lora_B*",)),)), start)
    assert rounds.strategy.update_spec(rounds.spec).names == ("q.lora_B.weight", "v.lora_B.weight")
    sent = [{name: array for name, array in update.items() if "lora_B" in name} for update in SENT]
    after = rounds.play(sent, num_examples=EXAMPLES)
    for name in set(start) - set(sent[0]):
        assert after[name].tobytes() == start[name].tobytes()
    for layer in LAYERS:
        clients = [effective(start, {**start, **update}, layer, 1) for update in sent]
        expected = np.average(clients, axis=0, weights=EXAMPLES)
        np.testing.assert_allclose(effective(after, after, layer, 1), expected, rtol=1e-12, atol=1e-12)
