"""The topics of wake-ups."""

TASKS = "tasks"
CHANNELS = ("model", TASKS)


def of_model(federated_model_id: int) -> str:
    """The topic of a model: its rounds, aggregates and evaluations, its start and end."""
    return f"model:{federated_model_id}"


def channel_of(topic: str) -> str:
    return topic.partition(":")[0]
