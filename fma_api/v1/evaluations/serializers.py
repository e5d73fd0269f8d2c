"""Evaluations on the wire: what opens one, what is shown of it, and what a client sends."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from fma_api.v1.callers import client_of, organisations_shown
from fma_api.v1.ids import MAX_ID
from fma_api.v1.unknown_names import refuse_unknown
from fma_api.v1.waiting import Seconds
from fma_api.v1.weights_field import WeightsField
from fma_api.v1.weights_url import WeightsUrl
from fma_core.evaluation.question import MAX_BINS, TASKS
from fma_django.evaluations.opening import DAY_S, MAX_CHOSEN
from fma_django.models import Client, EvaluationResult, EvaluationRound

OfClient = TypeVar("OfClient", Client, EvaluationResult)

QUESTION: dict[str, Any] = {
    "type": "object",
    "properties": {
        "task": {"type": "string", "enum": list(TASKS)},
        "labels": {
            "type": "array",
            "items": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
            "description": "The classes; of two the negative one first. By default 0 and 1 for a binary task.",
        },
        "bins": {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_BINS,
            "description": "Into how many equal parts scores from 0 to 1 are counted; 0: none are asked for.",
        },
        "with_loss": {"type": "boolean", "description": "Whether the sum of a loss is asked for."},
    },
    "required": ["task"],
}


@extend_schema_field(QUESTION)
class QuestionField(serializers.JSONField):
    """Looked at by the arithmetic, which knows what can be asked."""


class NewEvaluationSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=255, required=False, default="", allow_blank=True)
    question = QuestionField()
    aggregate = serializers.IntegerField(min_value=1, max_value=MAX_ID, required=False, allow_null=True)
    artifact = serializers.IntegerField(min_value=1, max_value=MAX_ID, required=False, allow_null=True)
    weights = WeightsField(
        required=False, allow_null=True, help_text="Weights of your own; or as a safetensors body."
    )
    clients = serializers.ListField(
        child=serializers.UUIDField(), required=False, default=list, max_length=MAX_CHOSEN
    )
    tags = serializers.ListField(
        child=serializers.CharField(max_length=64), required=False, default=list, max_length=MAX_CHOSEN
    )
    organisations = serializers.ListField(
        child=serializers.CharField(max_length=255),
        required=False,
        default=list,
        max_length=MAX_CHOSEN,
        help_text="Names of organisations. Clients that are named, carry one of the tags or belong to one of these are "
        "asked; without any of the three lists, every client of the model.",
    )
    min_contributors = serializers.IntegerField(
        min_value=2,
        max_value=MAX_CHOSEN,
        required=False,
        allow_null=True,
        help_text="Organisations, or clients without one; by default, and at least, what the server demands.",
    )
    quorum_per_organisation = serializers.IntegerField(
        min_value=1, max_value=MAX_CHOSEN, required=False, allow_null=True
    )
    deadline_s = Seconds(
        required=False, default=DAY_S, help_text="Seconds from now; a day by default, a year at most."
    )

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            # A rule that is misspelt must not silently be left out.
            refuse_unknown(data, self.fields, says="There is no such field", otherwise=".")
        return super().to_internal_value(data)


class WithheldSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    detail = serializers.CharField()


class EvaluationSerializer(serializers.ModelSerializer[EvaluationRound]):
    model = WeightsUrl("evaluation-weights", help_text="The URL of the evaluated weights.")
    question = QuestionField(read_only=True)
    num_asked = serializers.IntegerField(read_only=True)
    num_answered = serializers.IntegerField(read_only=True)
    clients = serializers.SerializerMethodField(
        help_text="The clients that were asked; for users only, for members of an organisation its own."
    )
    answered = serializers.SerializerMethodField(
        help_text="The clients among them that answered; shown as those are."
    )
    metrics = serializers.DictField(
        read_only=True, allow_null=True, help_text="Metrics over all examples of the contributors together."
    )
    withheld = serializers.SerializerMethodField(
        help_text="The reason why there are no metrics; null when there are."
    )

    class Meta:
        model = EvaluationRound
        fields = (
            "id",
            "federated_model",
            "name",
            "subject",
            "aggregate",
            "artifact",
            "model",
            "sha256",
            "size_bytes",
            "question",
            "min_contributors",
            "quorum_per_organisation",
            "deadline_at",
            "state",
            "reason",
            "num_asked",
            "num_answered",
            "num_contributors",
            "clients",
            "answered",
            "metrics",
            "withheld",
            "opened_on",
            "closed_on",
        )
        read_only_fields = fields

    @extend_schema_field(serializers.ListField(child=serializers.UUIDField(), allow_null=True))
    def get_clients(self, evaluation: EvaluationRound) -> list[str] | None:
        if self._is_for_a_client():
            return None
        return [str(client.pk) for client in self._own(evaluation, evaluation.clients.all())]

    @extend_schema_field(serializers.ListField(child=serializers.UUIDField(), allow_null=True))
    def get_answered(self, evaluation: EvaluationRound) -> list[str] | None:
        if self._is_for_a_client():
            return None
        return [str(result.client_id) for result in self._own(evaluation, evaluation.results.all())]

    @extend_schema_field(WithheldSerializer(allow_null=True))
    def get_withheld(self, evaluation: EvaluationRound) -> dict[str, str] | None:
        why = evaluation.why_withheld
        return None if why is None else {"code": why[0], "detail": why[1]}

    def _own(self, evaluation: EvaluationRound, rows: Iterable[OfClient]) -> list[OfClient]:
        shown = organisations_shown(self.context["request"], evaluation.federated_model)
        return [row for row in rows if shown is None or row.organisation_id in shown]

    def _is_for_a_client(self) -> bool:
        return client_of(self.context["request"]) is not None


class NewResultSerializer(serializers.Serializer[Any]):
    statistics = serializers.JSONField(help_text="Counts and sums, with the question that they answer.")


class ResultSerializer(serializers.ModelSerializer[EvaluationResult]):
    """The result of one client, for itself and for its own organisation."""

    organisation = serializers.CharField(source="organisation.name", default=None, allow_null=True)
    metrics = serializers.DictField(read_only=True, help_text="Metrics of these statistics alone.")

    class Meta:
        model = EvaluationResult
        fields = (
            "id",
            "evaluation",
            "client",
            "organisation",
            "statistics",
            "metrics",
            "is_counted",
            "created_on",
        )
        read_only_fields = fields


class EvaluationWaitSerializer(serializers.Serializer[None]):
    wait = Seconds(
        min_value=0,
        required=False,
        default=0.0,
        help_text="Seconds to wait until there is an evaluation; for clients.",
    )
