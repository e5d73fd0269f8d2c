"""MLflow: a run for each model in the experiment `fma`, a step for each round. The extra `mlflow`."""

import os
from collections.abc import Sequence
from typing import Any, ClassVar

from fma_django.forwarders.forwarder import Number
from fma_django.models import FederatedModel

EXPERIMENT = "fma"
AT_A_TIME = 500  # MLflow takes 1000 in one request
# A server that is away must not keep a worker for long; and nothing is told to MLflow's makers.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class MlflowRuns:
    """Forwards to the MLflow server at a tracking URI. Credentials are MLflow's own MLFLOW_TRACKING_* variables."""

    target: ClassVar[str] = "mlflow"

    def __init__(self, tracking_uri: str) -> None:
        self._tracking_uri = tracking_uri

    def begin(self, federated_model: FederatedModel) -> str:
        client = self._client()
        existing = client.get_experiment_by_name(EXPERIMENT)
        experiment = client.create_experiment(EXPERIMENT) if existing is None else existing.experiment_id
        tags = {"fma.model": str(federated_model.pk), "fma.aggregator": federated_model.aggregator}
        run = client.create_run(experiment, run_name=federated_model.name[:250], tags=tags)
        return str(run.info.run_id)

    def send(self, run: str, numbers: Sequence[Number]) -> None:
        from mlflow.entities import Metric

        client = self._client()
        # Of the same run, name, step, time and value MLflow keeps one.
        metrics = [
            Metric(number.name, number.value, int(number.at * 1000), number.round) for number in numbers
        ]
        for start in range(0, len(metrics), AT_A_TIME):
            client.log_batch(run, metrics=metrics[start : start + AT_A_TIME])

    def end(self, run: str) -> None:
        self._client().set_terminated(run)

    def _client(self) -> Any:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Here, because it takes seconds, and is there only with the extra.
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=self._tracking_uri)
