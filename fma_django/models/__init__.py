"""The record: who trains what, who answered in which round, and what became of it."""

from fma_django.models.api_token import ApiToken
from fma_django.models.client import Client
from fma_django.models.client_aggregate_score import ClientAggregateScore
from fma_django.models.client_error import ClientError
from fma_django.models.client_telemetry import ClientTelemetry
from fma_django.models.config_version import ConfigVersion
from fma_django.models.disclosure import Disclosure
from fma_django.models.evaluation_result import EvaluationResult
from fma_django.models.evaluation_round import EvaluationRound
from fma_django.models.federated_model import FederatedModel
from fma_django.models.forwarding import Forwarding
from fma_django.models.idempotency_key import IdempotencyKey
from fma_django.models.invitation import Invitation
from fma_django.models.issuer import Issuer
from fma_django.models.model_aggregate import ModelAggregate
from fma_django.models.model_artifact import ModelArtifact
from fma_django.models.model_update import ModelUpdate
from fma_django.models.organisation import Membership, Organisation
from fma_django.models.participation import Participation
from fma_django.models.round import Round
from fma_django.models.store_ownership import StoreOwnership
from fma_django.models.tag import Tag
from fma_django.models.update_signature import UpdateSignature
from fma_django.models.upload import Upload
from fma_django.models.worker import Worker

__all__ = [
    "ApiToken",
    "Client",
    "ClientAggregateScore",
    "ClientError",
    "ClientTelemetry",
    "ConfigVersion",
    "Disclosure",
    "EvaluationResult",
    "EvaluationRound",
    "FederatedModel",
    "Forwarding",
    "IdempotencyKey",
    "Invitation",
    "Issuer",
    "Membership",
    "ModelAggregate",
    "ModelArtifact",
    "ModelUpdate",
    "Organisation",
    "Participation",
    "Round",
    "StoreOwnership",
    "Tag",
    "UpdateSignature",
    "Upload",
    "Worker",
]
