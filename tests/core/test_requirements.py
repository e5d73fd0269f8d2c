import pytest

from fma_core.errors import InvalidParameter
from fma_core.rounds.requirements import RequireXUpdates, RoundProgress, requirements


@pytest.mark.parametrize(
    ("name", "params", "updates", "clients", "answered", "met"),
    [
        ("none", None, 0, 0, 0, False),
        ("none", None, 1, 5, 1, True),
        ("require_x_updates", [2], 1, 5, 1, False),
        ("require_x_updates", [2], 2, 5, 2, True),
        ("require_x_updates", {"x": 2}, 3, 5, 3, True),
        # FMA would let one client meet it alone.
        ("require_x_updates", [2], 2, 5, 1, False),
        ("all_clients", None, 0, 0, 0, False),
        ("all_clients", [], 4, 5, 4, False),
        ("all_clients", None, 5, 5, 5, True),
        ("all_clients", None, 9, 5, 4, False),
    ],
)
def test_requirements(name, params, updates, clients, answered, met):
    assert requirements.build(name, params).is_met(RoundProgress(updates, clients, answered)) is met


@pytest.mark.parametrize("args", [[], [0], [-1], ["3"], [1.0], [None], [1, 2], {"y": 1}])
def test_require_x_updates_refuses(args):
    with pytest.raises(InvalidParameter):
        requirements.build("require_x_updates", args)


def test_require_x_updates_refuses_in_python_too():
    with pytest.raises(ValueError, match="^parameter 'x' of RequireXUpdates must be at least 1, found 0$"):
        RequireXUpdates(0)
    with pytest.raises(
        InvalidParameter, match="^parameter 'x' of requirement 'require_x_updates' must be at least 1"
    ):
        requirements.build("require_x_updates", [0])
