"""Rounds on the wire: their course, the clients chosen, and the answers to clients that want to take part."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from fma_api.v1.callers import client_of, organisations_shown
from fma_api.v1.waiting import Seconds
from fma_core.errors import FMAError
from fma_django.clients.joining import client_config_of
from fma_django.models import Participation, Round
from fma_django.models.round import RoundState
from fma_django.record.configuration import as_configured


class FailureSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    detail = serializers.CharField()


class SecondsSerializer(serializers.Serializer[Any]):
    """The durations of the parts of a round, in seconds; null for a part that has not ended."""

    collect = serializers.FloatField(allow_null=True, help_text="From opening to the requirement met.")
    wait = serializers.FloatField(allow_null=True, help_text="From then until a worker took it.")
    aggregate = serializers.FloatField(allow_null=True, help_text="From then to its end.")


class RoundSerializer(serializers.ModelSerializer[Round]):
    state = serializers.ChoiceField(choices=RoundState.choices)
    config_version = serializers.IntegerField(
        source="config_version.number",
        default=None,
        allow_null=True,
        help_text="The version of the model's configuration that it runs with.",
    )
    client_config = serializers.SerializerMethodField(
        help_text="The configuration that the client trains with; for the owner, the one without overrides."
    )
    clients = serializers.SerializerMethodField(
        help_text="The clients that answered; for the owner of the model only."
    )
    metrics = serializers.SerializerMethodField(
        help_text="The metrics of its updates, merged when it was published; for the owner of the model only."
    )
    seconds = serializers.SerializerMethodField()
    failure = serializers.SerializerMethodField()

    class Meta:
        model = Round
        fields = (
            "number",
            "federated_model",
            "state",
            "config_version",
            "parent",
            "aggregate",
            "waits_for",
            "started_on",
            "deadline_at",
            "num_asked",
            "num_updates",
            "num_reopenings",
            "client_config",
            "clients",
            "metrics",
            "attempts",
            "seconds",
            "failure",
            "opened_on",
            "ready_on",
            "claimed_on",
            "closed_on",
        )
        read_only_fields = fields

    @extend_schema_field(serializers.ListField(child=serializers.UUIDField(), allow_null=True))
    def get_clients(self, round_: Round) -> list[str] | None:
        if not self._is_for_the_owner(round_):
            return None
        return [str(update.client_id) for update in round_.model_updates.all() if update.counted]

    @extend_schema_field({"type": ["object", "null"], "additionalProperties": {}})
    def get_metrics(self, round_: Round) -> dict[str, Any] | None:
        # The least and the greatest value are those of single clients.
        return round_.metrics if self._is_for_the_owner(round_) else None

    def _is_for_the_owner(self, round_: Round) -> bool:
        request = self.context["request"]
        return client_of(request) is None and organisations_shown(request, round_.federated_model) is None

    @extend_schema_field({"type": "object", "additionalProperties": {}})
    def get_client_config(self, round_: Round) -> dict[str, Any]:
        try:
            return client_config_of(round_, as_configured(round_), client_of(self.context["request"]))
        except FMAError:  # a schedule's plugin is gone, which must not make the round unreadable
            return {}

    @extend_schema_field(SecondsSerializer)
    def get_seconds(self, round_: Round) -> dict[str, float | None]:
        moments = (round_.opened_on, round_.ready_on, round_.claimed_on, round_.closed_on)
        parts = zip(("collect", "wait", "aggregate"), moments[:-1], moments[1:], strict=True)
        return {
            name: round((end - start).total_seconds(), 6) if start is not None and end is not None else None
            for name, start, end in parts
        }

    @extend_schema_field(FailureSerializer(allow_null=True))
    def get_failure(self, round_: Round) -> dict[str, str] | None:
        if not round_.failure_code:
            return None
        return {"code": round_.failure_code, "detail": round_.failure_detail}


class ParticipationSerializer(serializers.ModelSerializer[Participation]):
    """One client that was looked at when the clients of a round were chosen."""

    client = serializers.UUIDField(source="client_id", help_text="The client's public id.")
    name = serializers.CharField(source="client.name")
    reason = serializers.CharField(
        help_text="The reason why it was not chosen, for programs; empty when it was."
    )
    detail = serializers.CharField(help_text="The same for people.")

    class Meta:
        model = Participation
        fields = (
            "client",
            "name",
            "is_chosen",
            "reason",
            "detail",
            "joined_on",
            "answered_on",
            "was_late",
        )
        read_only_fields = fields


class SelectionSerializer(serializers.Serializer[Any]):
    """The clients that were chosen for a round, those that were not, and why."""

    round = serializers.IntegerField(source="number")
    everyone = serializers.BooleanField(
        help_text="Every registered client may answer; `clients` are then those that joined."
    )
    num_asked = serializers.IntegerField(
        allow_null=True, help_text="The number of clients chosen; null where every client may answer."
    )
    waits_for = serializers.CharField(help_text="The reason why nobody has been chosen yet.")
    clients = ParticipationSerializer(
        many=True,
        help_text="One page, the chosen first; for a client its own row only, for members of an organisation its "
        "clients.",
    )


class JoinWaitSerializer(serializers.Serializer[None]):
    wait = Seconds(
        min_value=0, required=False, default=0.0, help_text="Seconds to wait until the client is accepted."
    )


class JoinAnswerSerializer(serializers.Serializer[Any]):
    """Accepted: with `round`, `base_aggregate`, `client_config`, `deadline_at`. Not: with `reason`, `detail`,
    `retry_after_s`."""

    accepted = serializers.BooleanField(source="is_accepted")
    round = serializers.IntegerField(required=False, allow_null=True)
    base_aggregate = serializers.IntegerField(
        required=False,
        allow_null=True,
        help_text="The aggregate to train from; null: the artifact's weights, or any.",
    )
    client_config = serializers.DictField(required=False)
    deadline_at = serializers.DateTimeField(
        required=False, allow_null=True, help_text="The time at which the round closes; null: none is set."
    )
    reason = serializers.CharField(required=False, help_text="Stable; for programs.")
    detail = serializers.CharField(required=False, help_text="The same for people.")
    retry_after_s = serializers.IntegerField(
        required=False,
        allow_null=True,
        help_text="Seconds until asking again is of use; null when it never is.",
    )

    def to_representation(self, instance: Any) -> dict[str, Any]:
        members = super().to_representation(instance)
        left_out = REFUSED if instance.is_accepted else ACCEPTED
        return {name: value for name, value in members.items() if name not in left_out}


ACCEPTED = ("base_aggregate", "client_config", "deadline_at")
REFUSED = ("reason", "detail", "retry_after_s")
