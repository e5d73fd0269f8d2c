"""The names of what may have changed."""

TASKS = "tasks"
CHANNELS = ("model", TASKS)


def of_model(federated_model_id: int) -> str:
    """Anything of a model that a waiting client could want to know: its rounds, aggregates, evaluations, its life."""
    return f"model:{federated_model_id}"


def channel_of(topic: str) -> str:
    return topic.partition(":")[0]
