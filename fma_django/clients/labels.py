"""Organisations and tags of clients, by their names."""

from collections.abc import Iterable

from django.core.exceptions import ValidationError

from fma_django.errors import InvalidValue
from fma_django.models import Organisation, Tag
from fma_django.models.tag import TAG

MAX_TAGS = 64


def organisation_named(name: str | None) -> Organisation | None:
    """Raises InvalidValue for one that is not there."""
    if name is None:
        return None
    organisation = Organisation.objects.filter(name=name).first()
    if organisation is None:
        raise InvalidValue(f"there is no organisation {name[:80]!r}; make it first", field="organisation")
    return organisation


def tags_named(names: Iterable[str]) -> list[Tag]:
    """The tags, made if nobody has used them before. Raises InvalidValue for a word that can be no tag."""
    wanted = sorted(set(names))
    if len(wanted) > MAX_TAGS:
        raise InvalidValue(f"a client may have {MAX_TAGS} tags; found {len(wanted)}", field="tags")
    for name in wanted:
        try:
            TAG(name)
        except ValidationError as error:
            raise InvalidValue(f"{error.message}; found {name[:80]!r}", field="tags") from error
    Tag.objects.bulk_create([Tag(name=name) for name in wanted], ignore_conflicts=True)
    return list(Tag.objects.filter(name__in=wanted))
