from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from typing import Annotated, ClassVar, Literal

import pytest

from fma_core import registry as registry_module
from fma_core.aggregation.aggregators import AvgValuesIfData, Mean, aggregators
from fma_core.errors import InvalidParameter, UnknownPart
from fma_core.parameters import Bounds
from fma_core.registry import Description, Registry
from fma_core.rounds.requirements import RequireXUpdates, requirements


@dataclass(frozen=True)
class Clip:
    """Scale an update so that its norm is
    at most `max_norm`.

    More about it.
    """

    source: ClassVar[str] = "Sun et al. 2019, arXiv:1911.07963"

    max_norm: Annotated[float, Bounds(gt=0), "The largest norm."]
    mode: Literal["global", "layer"] = "global"
    patterns: tuple[str, ...] = ()
    seed: int | None = None
    strict: bool = False
    tags: tuple[str, ...] = field(default_factory=tuple)

    def __post_init__(self):
        if self.mode == "layer" and self.strict:
            raise ValueError(f"strict cannot be true with mode 'layer'; found max_norm {self.max_norm}")


@dataclass
class Thawed:
    x: int = 1


@dataclass(frozen=True)
class Named:
    name: str = ""


@dataclass(frozen=True)
class Untypable:
    table: dict[str, float] | None = None


@pytest.fixture
def stages():
    registry = Registry[Clip]("stage", "fma.tests.stages")
    registry.register("clip")(Clip)
    return registry


def test_build_by_name_and_by_position(stages):
    assert stages.build("clip", {"max_norm": 2}) == Clip(2.0)
    assert type(stages.build("clip", {"max_norm": 2}).max_norm) is float
    assert stages.build("clip", [1.5, "layer"]) == Clip(1.5, "layer")
    assert stages.build("clip", {"max_norm": 1.0, "patterns": ["a", "b"], "seed": 3, "strict": True}) == Clip(
        1.0, patterns=("a", "b"), seed=3, strict=True
    )


def test_spec_of_and_build_are_inverse(stages):
    part = Clip(1.0, patterns=("a",))
    spec = stages.spec_of(part)
    assert spec["name"] == "clip"
    assert stages.build(spec.pop("name"), spec) == part


def test_build_spec_is_the_inverse_of_spec_of(stages):
    part = Clip(1.0, patterns=("a",))
    assert stages.build_spec(stages.spec_of(part)) == part
    assert stages.build_spec({"name": "clip", "max_norm": 1}) == Clip(1.0)


@pytest.mark.parametrize("spec", [None, 3, "clip", ["clip"], {}, {"max_norm": 1.0}])
def test_a_spec_that_is_none_is_refused(stages, spec):
    with pytest.raises(
        InvalidParameter, match='stage must be an object with a "name", such as {"name": "clip"'
    ):
        stages.build_spec(spec)


def test_a_spec_of_a_wrong_part_is_refused(stages):
    with pytest.raises(UnknownPart, match="did you mean 'clip'"):
        stages.build_spec({"name": "clop"})
    with pytest.raises(UnknownPart):
        stages.build_spec({"name": None})
    with pytest.raises(InvalidParameter, match="greater than 0") as raised:
        stages.build_spec({"name": "clip", "max_norm": -1})
    assert raised.value.facts["parameter"] == "max_norm"


def test_describe(stages):
    described = stages.describe("clip")
    assert described.to_json() | {"parameters": ...} == {
        "name": "clip",
        "kind": "stage",
        "description": "Scale an update so that its norm is at most `max_norm`.",
        "source": "Sun et al. 2019, arXiv:1911.07963",
        "minimum": None,
        "parameters": ...,
        "error": None,
    }
    assert described.parameters["required"] == ["max_norm"]
    assert described.parameters["properties"]["max_norm"] == {
        "type": "number",
        "exclusiveMinimum": 0,
        "description": "The largest norm.",
    }
    with pytest.raises(UnknownPart):
        stages.describe("clop")


def test_a_class_that_says_little_is_described_all_the_same(stages):
    @dataclass(frozen=True)
    class Silent:
        minimum: ClassVar[str] = "2·f + 3"

    with stages.register_temporarily("silent", Silent):
        described = stages.describe("silent")
    assert (described.description, described.source, described.minimum) == ("", "", "2·f + 3")
    assert described.parameters["properties"] == {}


@pytest.mark.parametrize("registry", [aggregators, requirements])
def test_everything_that_is_built_in_is_described(registry):
    described = registry.describe_all()
    assert tuple(part.name for part in described) == registry.names()
    assert [part for part in described if part.error or not part.description] == []


def test_an_unknown_name_lists_the_known_ones(stages):
    with pytest.raises(
        UnknownPart, match="stage 'clop' is unknown; did you mean 'clip'\\? known are clip"
    ) as raised:
        stages.build("clop")
    assert raised.value.facts == {"kind": "stage", "name": "clop", "known": ["clip"]}
    for name in (None, 3, ["clip"], {}, "__class__", ""):
        with pytest.raises(UnknownPart):
            stages.build(name)


@pytest.mark.parametrize(
    ("params", "parameter", "message"),
    [
        ({}, "max_norm", "is missing"),
        (None, "max_norm", "is missing"),
        ([], "max_norm", "is missing"),
        ({"max_norm": 1.0, "norm": 2}, "norm", "is unknown; its parameters are max_norm, mode"),
        ({"max_norm": "1"}, "max_norm", r"must be a finite number \(greater than 0\), found '1'"),
        ({"max_norm": True}, "max_norm", "finite number"),
        ({"max_norm": float("nan")}, "max_norm", "finite number"),
        ({"max_norm": 10**400}, "max_norm", "finite number"),
        ({"max_norm": None}, "max_norm", "finite number"),
        ({"max_norm": 1, "mode": "all"}, "mode", "must be 'global' or 'layer'"),
        ({"max_norm": 1, "seed": 1.0}, "seed", "must be an integer or null"),
        ({"max_norm": 1, "strict": 1}, "strict", "must be true or false"),
        ({"max_norm": 1, "patterns": "ab"}, "patterns", "a list of which each is a string"),
        ({"max_norm": 1, "patterns": [1]}, "patterns", "a list of which each is a string"),
        (
            {"max_norm": 0},
            "max_norm",
            r"^parameter 'max_norm' of stage 'clip' must be greater than 0, found 0$",
        ),
        ({"max_norm": 1, "mode": "layer", "strict": True}, "strict", "^stage 'clip': strict cannot be true"),
        ([1, 2, 3, 4, 5, 6, 7], None, "takes 6 parameters"),
        ("1", None, "must be an object or a list"),
        (3, None, "must be an object or a list"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_by_name(stages, params, parameter, message):
    with pytest.raises(InvalidParameter, match=message) as raised:
        stages.build("clip", params)
    assert raised.value.facts["parameter"] == parameter
    assert "max_norm" in raised.value.facts["known"]


def test_register_temporarily(stages):
    with stages.register_temporarily("other", Clip):
        assert stages.names() == ("clip", "other")
    assert stages.names() == ("clip",)


def test_register_temporarily_in_the_place_of_another(stages):
    @dataclass(frozen=True)
    class Other:
        pass

    with stages.register_temporarily("clip", Other):
        assert stages.build("clip") == Other()
    assert stages.class_of("clip") is Clip


def test_only_frozen_dataclasses_and_new_names_are_registered(stages):
    with pytest.raises(TypeError, match="frozen dataclass"):
        stages.register("thawed")(Thawed)
    with pytest.raises(TypeError, match="frozen dataclass"):
        stages.register("plain")(int)
    with pytest.raises(TypeError, match="parameter named 'name', which every part has"):
        stages.register("named")(Named)
    with pytest.raises(ValueError, match="registered already"):
        stages.register("clip")(Clip)


def test_a_part_that_is_not_registered_has_no_spec(stages):
    with pytest.raises(UnknownPart, match="Mean is not registered"):
        stages.spec_of(Mean())


@pytest.fixture
def plugins(monkeypatch):
    points = {
        "good": f"{__name__}:Clip",
        "broken": "no_such_module_of_fma:Part",
        "thawed": f"{__name__}:Thawed",
        "untypable": f"{__name__}:Untypable",
        "clip": "no_such_module_of_fma:Thief",
    }
    found = [EntryPoint(name, value, "fma.tests.stages") for name, value in points.items()]
    monkeypatch.setattr(
        registry_module, "entry_points", lambda group: found if group == "fma.tests.stages" else []
    )


@pytest.mark.usefixtures("plugins")
class TestPlugins:
    def test_they_are_named_without_being_loaded(self, stages):
        assert stages.names() == ("broken", "clip", "good", "thawed", "untypable")

    def test_a_good_one_is_built(self, stages):
        assert stages.build("good", [1]) == Clip(1.0)
        assert stages.build("good", [2]) == Clip(2.0)

    def test_a_broken_one_says_why_and_breaks_no_other(self, stages):
        with pytest.raises(UnknownPart, match="cannot be loaded: ModuleNotFoundError"):
            stages.build("broken")
        assert stages.build("good", [1]) == Clip(1.0)

    def test_one_that_is_no_part_says_so(self, stages):
        with pytest.raises(UnknownPart, match="frozen dataclass"):
            stages.build("thawed")

    def test_one_with_a_parameter_of_no_use_says_so(self, stages):
        with pytest.raises(
            UnknownPart, match="parameter 'table' of Untypable: no parameter can be of type dict"
        ):
            stages.build("untypable")

    def test_one_that_cannot_be_loaded_is_described_by_its_error(self, stages):
        described = {part.name: part for part in stages.describe_all()}
        assert tuple(described) == stages.names()
        assert described["good"].parameters == described["clip"].parameters
        assert described["broken"] == Description("broken", "stage", error=described["broken"].error)
        assert "ModuleNotFoundError" in described["broken"].error
        assert "frozen dataclass" in described["thawed"].error

    def test_none_takes_a_name_of_ours(self, stages):
        assert stages.build("clip", [1]) == Clip(1.0)


def test_built_in_names():
    assert {"average_layers", "avg_values_if_data", "mean"} <= set(aggregators.names())
    assert requirements.names() == ("all_clients", "none", "require_x_updates")
    assert aggregators.build("mean") == Mean()
    assert aggregators.build("avg_values_if_data", []) == AvgValuesIfData()
    assert requirements.build("require_x_updates", [3]) == RequireXUpdates(3)
    assert aggregators.spec_of(Mean()) == {"name": "mean"}
