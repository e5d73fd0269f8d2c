"""Invitations: whoever has the token of one may register clients with its models."""

import base64
import hmac
import secrets
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from fma_django.accounts.grants import may, only_model, organisations_where
from fma_django.accounts.roles import CHANGE_CLIENT, RUN_EXPERIMENTS
from fma_django.clients.labels import tags_named
from fma_django.errors import InvalidInvitation, InvalidValue, NotPermitted
from fma_django.models import Client, FederatedModel, Invitation, Organisation
from fma_django.models.invitation import hash_token
from fma_django.record.idempotency import Once, create_once
from fma_django.record.queries.visible import visible_to

ADD_INVITATION = "fma_django.add_invitation"
DELETE_INVITATION = "fma_django.delete_invitation"
VIEW_INVITATION = "fma_django.view_invitation"
MOST_USES = 100_000
EXPIRES_AFTER = timedelta(days=14)
LASTS = timedelta(days=366)


def create_invitation(
    *,
    by: User | None,
    models: Collection[int],
    uses: int = 1,
    organisation: int | None = None,
    tags: Collection[str] = (),
    expires_on: datetime | None = None,
    once: Once | None = None,
) -> tuple[Invitation, str]:
    """A new invitation and its token, which is not kept and cannot be shown again.

    once: the same key gives the same invitation and token again for a day. The token is derived from the key and the
    server's secret, so nothing secret is stored for this.

    by: who invites; None is the operator at the command line. With the permission to add invitations, a user invites to
    every model that they see; with that permission in an organisation, its clients only. Everybody who may run
    experiments invites to their own.
    models, organisation: ids. expires_on: by default in 14 days, at most in 366.
    tags: for whoever may change the clients: by its tags a client is selected in other models, too.
    Raises InvalidValue, NotPermitted, IdempotencyKeyReused, IdempotencyKeyExpired.
    """
    if (only := only_model(by)) is not None:
        raise NotPermitted(f"the token is for model {only} alone, and takes no clients into it")
    now = timezone.now()
    expires_on = expires_on or now + EXPIRES_AFTER
    if expires_on <= now:
        raise InvalidValue("an invitation expires in the future", field="expires_on")
    if expires_on > now + LASTS:
        raise InvalidValue(f"an invitation expires in {LASTS.days} days at most", field="expires_on")
    if not 1 <= uses <= MOST_USES:
        raise InvalidValue(f"an invitation has 1 to {MOST_USES:,} uses; found {uses}", field="uses")
    federated_models = _models(models, by)
    place = _organisation(organisation, federated_models, by)
    if tags and by is not None and not may(by, CHANGE_CLIENT, place):
        raise NotPermitted(
            f"tags of its clients need the permission {CHANGE_CLIENT}", permission=CHANGE_CLIENT
        )
    token = secrets.token_urlsafe(32) if once is None else _derived(once)

    def create() -> Invitation:
        invitation = Invitation.objects.create(
            token_hash=hash_token(token),
            organisation=place,
            uses=uses,
            uses_left=uses,
            created_by=by,
            expires_on=expires_on,
        )
        invitation.federated_models.set(federated_models)
        invitation.tags.set(tags_named(tags))
        return invitation

    return create_once(once, Invitation, create), token


def use_invitation(token: str, federated_model: FederatedModel, client: Client, *, is_new: bool) -> None:
    """Use an invitation once for a client, which then registers with all its models. A new client gets its
    organisation and its tags; a known one keeps its own.

    It counts as long as the user who made it could make it again. Call it in the transaction that registers the client.
    Raises InvalidInvitation.
    """
    # Held until the client is there: who comes at once waits, and finds one use less.
    invitation = (
        Invitation.objects.select_for_update(of=("self",))
        .select_related("created_by")
        .filter(token_hash=hash_token(token))
        .first()
    )
    if invitation is None:
        raise InvalidInvitation("there is no such invitation")
    creator = invitation.created_by
    if invitation.revoked_on is not None or (creator is not None and not creator.is_active):
        raise InvalidInvitation("the invitation was revoked")
    if invitation.expires_on <= timezone.now():
        raise InvalidInvitation("the invitation has expired")
    if not invitation.federated_models.filter(pk=federated_model.pk).exists():
        raise InvalidInvitation(f"the invitation is not for model {federated_model.pk}")
    if creator is not None and not _may_still_invite(creator, invitation.organisation_id, federated_model):
        raise InvalidInvitation("the user who made the invitation may not invite to this any more")
    # Asked again, as it may have come at once with itself.
    is_registered = federated_model.clients.filter(pk=client.pk).exists()
    if is_registered or invitation.used_by.filter(pk=client.pk).exists():
        return
    if not invitation.uses_left:
        raise InvalidInvitation("the invitation is used up")
    Invitation.objects.filter(pk=invitation.pk).update(uses_left=F("uses_left") - 1)
    invitation.used_by.add(client)
    if is_new:
        client.invitation, client.organisation_id = invitation, invitation.organisation_id
        client.save(update_fields=["invitation", "organisation"])
        client.tags.set(invitation.tags.all())


def revoke_invitation(invitation: Invitation, *, by: User | None) -> None:
    """Let it register no further client; those that it has registered stay. Raises NotPermitted."""
    is_own = by is None or invitation.created_by_id == by.pk
    if not is_own and not may(by, DELETE_INVITATION, invitation.organisation):
        raise NotPermitted(f"this needs the permission {DELETE_INVITATION}", permission=DELETE_INVITATION)
    Invitation.objects.filter(pk=invitation.pk, revoked_on=None).update(revoked_on=timezone.now())


def visible_invitations(caller: Any) -> QuerySet[Invitation]:
    """The invitations that a user may see: all, those of their organisations, and the ones that they made."""
    invitations = Invitation.objects.defer("token_hash")
    if (only := only_model(caller)) is not None:
        further = Invitation.federated_models.through.objects.exclude(federatedmodel=only)
        invitations = invitations.filter(federated_models=only).exclude(pk__in=further.values("invitation"))
    if may(caller, VIEW_INVITATION):
        return invitations
    return invitations.filter(
        Q(created_by=caller.pk) | Q(organisation__in=organisations_where(caller, VIEW_INVITATION))
    )


def _may_still_invite(creator: User, organisation: int | None, federated_model: FederatedModel) -> bool:
    """Whether the user may still invite to the model: roles end, and models are transferred."""
    if not visible_to(creator, FederatedModel.objects.filter(pk=federated_model.pk)).exists():
        return False
    return may(creator, ADD_INVITATION, organisation) or (
        organisation is None
        and creator.has_perm(RUN_EXPERIMENTS)
        and federated_model.developer_id == creator.pk
    )


def _derived(once: Once) -> str:
    said = f"invitation {len(once.scope)} {once.scope} {once.key}"
    digest = hmac.digest(settings.SECRET_KEY.encode(), said.encode(), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _models(ids: Collection[int], by: User | None) -> list[FederatedModel]:
    if not ids:
        raise InvalidValue("an invitation is for one model at least", field="models")
    known = FederatedModel.objects.all() if by is None else visible_to(by, FederatedModel.objects.all())
    found = {federated_model.pk: federated_model for federated_model in known.filter(pk__in=ids)}
    for pk in ids:
        if pk not in found:
            raise InvalidValue(f"there is no model {pk}, or not for you", field="models")
    return list(found.values())


def _organisation(
    pk: int | None, federated_models: Collection[FederatedModel], by: User | None
) -> Organisation | None:
    """The organisation of the clients: as it is asked for, or the only one that the user may invite to."""
    if by is None or may(by, ADD_INVITATION):
        organisation = Organisation.objects.filter(pk=pk).first() if pk is not None else None
        if pk is not None and organisation is None:
            raise InvalidValue(f"there is no organisation {pk}", field="organisation")
        return organisation
    theirs = organisations_where(by, ADD_INVITATION)
    if pk is None and len(theirs) == 1:
        pk = theirs[0]
    if pk in theirs:
        return Organisation.objects.get(pk=pk)
    if pk is not None:
        raise NotPermitted(f"you may not invite clients to organisation {pk}", permission=ADD_INVITATION)
    if theirs:
        raise InvalidValue("name the organisation of the clients", field="organisation")
    if by.has_perm(RUN_EXPERIMENTS) and all(row.developer_id == by.pk for row in federated_models):
        return None
    raise NotPermitted(f"this needs the permission {ADD_INVITATION}", permission=ADD_INVITATION)
