"""The checks that decide whether the demo is ok, made through the API when all rounds are over."""

from collections import Counter

from fma_api.cli.demo.comparison import Comparison
from fma_api.cli.demo.federation import Plan
from fma_api.cli.problem import Problem
from fma_connect import DeveloperClient

COMPLETE = 2
LEAST_OF_CENTRALISED = 0.95


def require_complete_record(developer: DeveloperClient, model: int, plan: Plan) -> None:
    """Raise Problem unless every round was published, and of every client exactly one update counted in each."""
    rounds = developer.rounds(model)
    published = {round_["number"] for round_ in rounds if round_["state"] == "published"}
    if published != set(range(1, plan.num_rounds + 1)):
        raise Problem(
            f"rounds 1 to {plan.num_rounds} were to be published; published were {sorted(published)}"
        )
    failed = [round_["number"] for round_ in rounds if round_["state"] in ("failed", "cancelled")]
    if failed:
        raise Problem(f"rounds {failed} failed")
    updates = developer.updates(model)
    lost = [update["id"] for update in updates if update["status"] != COMPLETE]
    if lost:
        raise Problem(f"updates {lost} were accepted and never aggregated")
    expected = plan.num_clients * plan.num_rounds
    if len(updates) != expected:
        raise Problem(f"{expected} updates were sent; the server has {len(updates)}")
    by_client = Counter(update["client"] for update in updates)
    if sorted(by_client.values()) != [plan.num_rounds] * plan.num_clients:
        raise Problem(
            f"each of {plan.num_clients} clients was to send {plan.num_rounds} updates: {dict(by_client)}"
        )


def require_accuracy(accuracy: float, without: Comparison) -> None:
    least = LEAST_OF_CENTRALISED * without.centralised
    if accuracy < least:
        raise Problem(
            f"the federated accuracy is {accuracy:.3f}, under {LEAST_OF_CENTRALISED:.0%} of the "
            f"{without.centralised:.3f} that all data in one place give"
        )
