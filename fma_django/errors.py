"""The refusals of the record, as one branch of the tree in `fma_core.errors`.

    FMAError
    ├── ClusterUnavailable          cluster_unavailable
    ├── WorkersKilled               workers_killed
    ├── MemoryInUse                 memory_in_use
    ├── JsonProcessEnded            json_process_ended
    ├── StoreNotOurs                store_not_ours
    └── Refused
        ├── UnknownModel            unknown_model
        ├── UnknownClient           unknown_client
        ├── NotRegistered           not_registered
        ├── RegistrationClosed      registration_closed
        ├── WrongEnrolmentToken     wrong_enrolment_token
        ├── InvalidInvitation       invalid_invitation
        ├── AwaitingApproval        awaiting_approval
        ├── NoConsent               no_consent
        ├── ModelFull               model_full
        ├── ClientMismatch          client_mismatch
        ├── ClientHasKey            client_has_key
        ├── KeyTaken                key_taken
        ├── SignatureRequired       signature_required
        ├── SignatureReplayed       signature_replayed
        ├── UnknownBaseAggregate    unknown_base_aggregate
        ├── BaseAggregateRequired   base_aggregate_required
        ├── InvalidValue            invalid_value
        ├── SchemaViolation         schema_violation
        ├── DigestMismatch          digest_mismatch
        ├── VersionTaken            version_taken
        ├── ScoreTaken              score_taken
        ├── ModelHasHistory         model_has_history
        ├── NoInitialModel          no_initial_model
        ├── NotVerifiable           not_verifiable
        ├── IdempotencyKeyReused    idempotency_key_reused
        ├── IdempotencyKeyExpired   idempotency_key_expired
        ├── ExperimentEnded         experiment_ended
        ├── NotSelected             not_selected
        ├── LateUpdate              late_update
        ├── RoundFull               round_full
        ├── TooFewContributors      too_few_contributors
        ├── IsolatesContributors    isolates_contributors
        ├── EvaluationClosed        evaluation_closed
        ├── ResultTaken             result_taken
        ├── RateExceeded            rate_exceeded
        ├── UnknownUpload           unknown_upload
        ├── UploadElsewhere         upload_elsewhere
        ├── TooManyUploads          too_many_uploads
        ├── UploadBusy              upload_busy
        ├── WrongOffset             wrong_offset
        ├── ChecksumMismatch        checksum_mismatch
        ├── UploadIncomplete        upload_incomplete
        ├── InvalidTransition       invalid_transition
        ├── NotPermitted            not_permitted
        │   └── AccountTaken        account_taken
        ├── PasswordLoginOff        password_login_off
        ├── SecondFactorRequired    second_factor_required
        ├── WrongSecondFactor       wrong_second_factor
        ├── LastOwner               last_owner
        ├── StillInUse              still_in_use
        └── LeaseLost               lease_lost

The fact `field` names the input at fault, where one input is.
"""

from typing import ClassVar

from fma_core.errors import FMAError


class ClusterUnavailable(FMAError):
    """The machines that do the arithmetic cannot be reached or used. Worth another try later. Facts: scheduler."""

    code: ClassVar[str] = "cluster_unavailable"


class WorkersKilled(FMAError):
    """Several machines died of one piece of work. An attempt, which may be repeated, but not for ever."""

    code: ClassVar[str] = "workers_killed"


class KeysUnavailable(FMAError):
    """The keys of the operator's identity provider cannot be read."""

    code: ClassVar[str] = "keys_unavailable"


class MemoryInUse(FMAError):
    """Other requests take the memory that this one needs; it can be repeated."""

    code = "memory_in_use"


class JsonProcessEnded(FMAError):
    """The process that parses large JSON was killed, was too slow or cannot be started; another one can be."""

    code = "json_process_ended"


class StoreNotOurs(FMAError):
    """The store belongs to another installation, so that nothing may be swept there."""

    code = "store_not_ours"


class Refused(FMAError):
    """The record cannot take what was asked of it."""

    code: ClassVar[str] = "refused"
    field: ClassVar[str | None] = None

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message, **{"field": self.field, **facts})


class UnknownModel(Refused):
    code = "unknown_model"
    field = "federated_model"

    @classmethod
    def of(cls, federated_model_id: int, *, is_gone: bool = False) -> "UnknownModel":
        """is_gone: it was there when the request began."""
        return cls(f"there is no model {federated_model_id}{' any more' if is_gone else ''}")


class UnknownClient(Refused):
    code = "unknown_client"
    field = "client"

    @classmethod
    def of_credential(cls) -> "UnknownClient":
        """One sentence for a credential that is malformed, unknown or revoked: it tells a guesser nothing."""
        return cls("CLIENT-UUID is not the credential of an active client")


class NotRegistered(Refused):
    code = "not_registered"

    @classmethod
    def of(cls, federated_model_id: int) -> "NotRegistered":
        return cls(
            f"this client is not registered with model {federated_model_id}; "
            f"POST models/{federated_model_id}/register_client/ first"
        )


class RegistrationClosed(Refused):
    code = "registration_closed"


class WrongEnrolmentToken(Refused):
    code = "wrong_enrolment_token"


class InvalidInvitation(Refused):
    code = "invalid_invitation"


class AwaitingApproval(Refused):
    """The client has registered, and nobody has approved it yet."""

    code = "awaiting_approval"

    @classmethod
    def of_client(cls) -> "AwaitingApproval":
        return cls("this client waits until an operator, or an admin of its organisation, approves it")


class NoConsent(Refused):
    """The client has not consented to train this model."""

    code = "no_consent"
    field = "client"


class ModelFull(Refused):
    """The model has as many clients as it may."""

    code = "model_full"


class InvalidEnrolmentJwt(Refused):
    code = "invalid_enrolment_jwt"


class ClientMismatch(Refused):
    code = "client_mismatch"
    field = "client"


class ClientHasKey(Refused):
    """The client has another key, which only an operator replaces."""

    code = "client_has_key"
    field = "public_key"


class KeyTaken(Refused):
    """The key is another's."""

    code = "key_taken"
    field = "public_key"


class SignatureRequired(Refused):
    """An update without the signature that the server requires of it."""

    code = "signature_required"


class SignatureReplayed(Refused):
    """An update with a signature that another one came with."""

    code = "signature_replayed"


class UnknownBaseAggregate(Refused):
    code = "unknown_base_aggregate"
    field = "base_aggregate"


class BaseAggregateRequired(Refused):
    code = "base_aggregate_required"
    field = "base_aggregate"


class InvalidValue(Refused):
    code = "invalid_value"


class SchemaViolation(Refused):
    code = "schema_violation"


class DigestMismatch(Refused):
    code = "digest_mismatch"


class VersionTaken(Refused):
    code = "version_taken"
    field = "version"


class ScoreTaken(Refused):
    code = "score_taken"
    field = "aggregate"


class ModelHasHistory(Refused):
    code = "model_has_history"


class NoInitialModel(Refused):
    code = "no_initial_model"


class NotVerifiable(Refused):
    code = "not_verifiable"


class IdempotencyKeyReused(Refused):
    code = "idempotency_key_reused"


class IdempotencyKeyExpired(Refused):
    code = "idempotency_key_expired"


class ExperimentEnded(Refused):
    code = "experiment_ended"


class NotSelected(Refused):
    code = "not_selected"


class LateUpdate(Refused):
    code = "late_update"


class RoundFull(Refused):
    code = "round_full"


class TooFewContributors(Refused):
    code = "too_few_contributors"


class IsolatesContributors(Refused):
    code = "isolates_contributors"


class EvaluationClosed(Refused):
    code = "evaluation_closed"


class ResultTaken(Refused):
    code = "result_taken"


class RateExceeded(Refused):
    """More was sent in a time than is allowed. Facts: retry_after_s."""

    code = "rate_exceeded"


class UnknownUpload(Refused):
    """There is no such upload of this caller, or not any more."""

    code = "unknown_upload"

    @classmethod
    def of(cls, upload_id: str) -> "UnknownUpload":
        return cls(f"this caller has no upload {upload_id:.40}", field="upload")


class UploadElsewhere(Refused):
    """The parts of an upload are in the spool of another machine."""

    code = "upload_elsewhere"


class TooManyUploads(Refused):
    """The caller has begun more than it may at one time. Facts: retry_after_s."""

    code = "too_many_uploads"


class UploadBusy(Refused):
    """Another request is making it an update, or an initial model. Facts: retry_after_s."""

    code = "upload_busy"


class WrongOffset(Refused):
    """A part that does not begin where the upload has got to. Facts: offset."""

    code = "wrong_offset"


class ChecksumMismatch(Refused):
    """A part that arrived damaged; nothing of it was kept."""

    code = "checksum_mismatch"


class UploadIncomplete(Refused):
    """An upload that is to become something before all of it is there. Facts: offset."""

    code = "upload_incomplete"


class InvalidTransition(Refused):
    code = "invalid_transition"


class NotPermitted(Refused):
    """The user may not do this; or would give somebody more than they hold themselves. Facts: permission."""

    code = "not_permitted"


class AccountTaken(NotPermitted):
    """The account at the identity provider is bound to another user."""

    code = "account_taken"
    field = "subject"


class PasswordLoginOff(Refused):
    """Nobody logs in with a password here (FMA_PASSWORD_LOGIN)."""

    code = "password_login_off"


class SecondFactorRequired(Refused):
    """The password is right, and alone not enough: the user has, or must set up, a second factor."""

    code = "second_factor_required"


class WrongSecondFactor(Refused):
    """The code is none of the user's, or was used before."""

    code = "wrong_second_factor"


class LastOwner(Refused):
    """Without this user the installation would have no owner."""

    code = "last_owner"


class StillInUse(Refused):
    """Other rows need this one, or the server itself does."""

    code = "still_in_use"


class LeaseLost(Refused):
    code = "lease_lost"
