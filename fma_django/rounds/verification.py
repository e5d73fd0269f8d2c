"""Computing a published aggregate again, from the updates that are still stored, and checking their signatures."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fma_core.engine import ENGINE_VERSION
from fma_django.errors import NotVerifiable
from fma_django.models import FederatedModel, ModelUpdate, Round, UpdateSignature
from fma_django.models.model_update import UpdateStatus
from fma_django.models.round import RoundState
from fma_django.record.queries.aggregates import initial_artifact
from fma_django.record.signed_updates import is_still_right
from fma_django.record.weights import spool_file
from fma_django.rounds.folding import Results, fold_round
from fma_django.storage import get_store
from fma_django.storage.errors import BlobCorrupt, BlobMissing


@dataclass(frozen=True)
class Verification:
    """The hashes of a round's aggregate and state: as published, and as computed again. "" where there is no state.

    num_signed: how many of its updates their clients have signed. other_files: the ids of those whose stored file has
    other bytes than their client signed. The server converted them, or the file was replaced in the record: a signature
    under the bytes that travelled cannot tell which. num_other_keys: how many are signed with a key that is not the
    client's now: it was replaced since, or the record was changed. wrong_signatures: the ids of updates whose signature
    is not right for what the record says of them now.
    """

    round_number: int
    num_updates: int
    published_sha256: str
    computed_sha256: str
    published_state_sha256: str
    computed_state_sha256: str
    num_signed: int = 0
    other_files: tuple[int, ...] = ()
    num_other_keys: int = 0
    wrong_signatures: tuple[int, ...] = ()

    @property
    def is_equal(self) -> bool:
        return (
            self.published_sha256 == self.computed_sha256
            and self.published_state_sha256 == self.computed_state_sha256
        )


def verify_round(
    federated_model: FederatedModel,
    number: int | None = None,
    *,
    progress: Callable[[float], None] = lambda share: None,
) -> Verification:
    """Fold a published round of a model once more (the newest one, when no number is given) and compare the hashes.

    Nothing is changed. Raises NotVerifiable, and the errors of `fma_core.engine.fold` for what can no longer be read.
    """
    published = _published(federated_model, number)
    aggregate = published.aggregate
    updates = list(
        published.model_updates.filter(status=UpdateStatus.COMPLETE)
        .select_related("base_aggregate")
        .order_by("pk")
    )
    spec = federated_model.array_spec
    if aggregate is None or published.strategy is None or spec is None:
        raise NotVerifiable(
            f"round {published.number} was published by an earlier version of fma, which did not write down how"
        )
    if len(updates) != published.num_updates:
        raise NotVerifiable(
            f"round {published.number} was made of {published.num_updates} updates; {len(updates)} are still stored"
        )
    _require_intact(published, updates)
    with spool_file() as weights, spool_file() as state:
        folded = fold_round(published, updates, spec, Results(weights, state), check=progress)
    signatures = (
        UpdateSignature.objects.filter(update__round=published, update__status=UpdateStatus.COMPLETE)
        .select_related("update__client")
        .order_by("update_id")
    )
    signed = list(signatures)
    verified = Verification(
        round_number=published.number,
        num_updates=len(updates),
        published_sha256=aggregate.sha256,
        computed_sha256=folded.weights.sha256,
        published_state_sha256=aggregate.state_sha256,
        computed_state_sha256="" if folded.state is None else folded.state.sha256,
        num_signed=len(signed),
        other_files=tuple(row.update_id for row in signed if row.sha256 != row.update.sha256),
        num_other_keys=sum(row.public_key != row.update.client.public_key for row in signed),
        wrong_signatures=tuple(row.update_id for row in signed if not is_still_right(row)),
    )
    if not verified.is_equal and published.engine_version != ENGINE_VERSION:
        raise NotVerifiable(
            f"round {published.number} was published by version {published.engine_version} of the arithmetic; "
            f"this fma has version {ENGINE_VERSION}, which gives other bits for these updates"
        )
    return verified


def _require_intact(published: Round, updates: Sequence[ModelUpdate]) -> None:
    """Every file that the round was made of must be what its hash says, also where the rule does not look at it.

    And so must what it published: people are served that file, not its hash.
    """
    parent, aggregate = published.parent, published.aggregate
    of_model = {
        "the model before the round": published.start_sha256,
        "the state before the round": "" if parent is None else parent.state_sha256,
        "the published aggregate": "" if aggregate is None else aggregate.sha256,
        "the state that was published": "" if aggregate is None else aggregate.state_sha256,
    }
    if any(update.base_aggregate is None for update in updates):
        initial = initial_artifact(published.federated_model)
        of_model["the initial model"] = "" if initial is None else initial.sha256
    of_updates = {f"update {update.pk}": update.sha256 for update in updates}
    of_bases = {
        f"the base of update {update.pk}": update.base_aggregate.sha256
        for update in updates
        if update.base_aggregate is not None
    }
    seen: set[str] = {""}
    for what, sha256 in {**of_model, **of_updates, **of_bases}.items():
        if sha256 in seen:
            continue
        seen.add(sha256)
        digest = hashlib.sha256()
        try:
            for piece in get_store().open_range(sha256):
                digest.update(piece)
        except (BlobMissing, BlobCorrupt) as error:
            raise NotVerifiable(f"{what} can no longer be read: {error.message}") from error
        if digest.hexdigest() != sha256:
            raise NotVerifiable(f"{what} is no longer what it was when it was stored")


def _published(federated_model: FederatedModel, number: int | None) -> Round:
    rounds = federated_model.rounds.select_related("aggregate", "parent", "federated_model").order_by(
        "-number"
    )
    if number is not None:
        rounds = rounds.filter(number=number)
    published = rounds.filter(state=RoundState.PUBLISHED).first()
    if published is not None:
        return published
    if number is None:
        raise NotVerifiable(f"model {federated_model.pk} has no published round")
    state = rounds.values_list("state", flat=True).first()
    raise NotVerifiable(
        f"model {federated_model.pk} has no round {number}"
        if state is None
        else f"round {number} of model {federated_model.pk} is {state}; only a published one can be verified"
    )
