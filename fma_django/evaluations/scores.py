"""Validation results that clients report for an aggregate."""

import hashlib
import math
from typing import Any

from django.db import IntegrityError, transaction

from fma_django.errors import InvalidValue, NotRegistered, ScoreTaken
from fma_django.models import Client, ClientAggregateScore, ModelAggregate
from fma_django.record.idempotency import Once, create_once
from fma_django.record.json_schema import require_schema
from fma_django.record.json_values import require_storable
from fma_django.rounds.advance import advance
from fma_django.rounds.ending import reason_to_end
from fma_django.rounds.rows import find_open_round

MAX_RESULTS_BYTES = 64 * 1024


def receive_score(
    aggregate: ModelAggregate, client: Client, validation_results: Any, *, idempotency_key: str | None = None
) -> ClientAggregateScore:
    """Keep a client's results for an aggregate, once.

    Raises NotRegistered, ScoreTaken, SchemaViolation (`client_agg_results_schema`), InvalidValue.
    """
    federated_model = aggregate.federated_model
    if not federated_model.clients.filter(pk=client.pk).exists():
        raise NotRegistered.of(federated_model.pk)
    results_json = require_storable(
        validation_results, field="validation_results", max_bytes=MAX_RESULTS_BYTES
    )
    if federated_model.client_agg_results_schema is not None:
        require_schema(
            validation_results, federated_model.client_agg_results_schema, field="validation_results"
        )

    def create() -> ClientAggregateScore:
        try:
            with transaction.atomic():
                score = ClientAggregateScore.objects.create(
                    aggregate=aggregate, client=client, validation_results=validation_results
                )
        except IntegrityError as error:
            raise ScoreTaken("this client has sent its results for this aggregate already") from error
        if federated_model.round_policy.get("metric_source") == "validation":
            collecting = find_open_round(federated_model)
            # Its model is as it is now: its policy may have been changed.
            if collecting is not None and reason_to_end(collecting.federated_model) is not None:
                advance(collecting, may_end=True)
        return score

    once = None
    if idempotency_key is not None:
        fingerprint = hashlib.sha256(f"{aggregate.pk} {results_json}".encode()).hexdigest()
        once = Once(f"client {client.pk} score", idempotency_key, fingerprint)
    return create_once(once, ClientAggregateScore, create)


def score_aggregate(aggregate: ModelAggregate, validation_score: float | None) -> None:
    """Keep what the developer thinks of an aggregate. Raises InvalidValue for NaN and Infinity."""
    if validation_score is not None and not math.isfinite(validation_score):
        raise InvalidValue("must be a finite number", field="validation_score")
    aggregate.validation_score = validation_score
    aggregate.save(update_fields=["validation_score"])
