"""Tags by their names; those that nobody has used before are made."""

from collections.abc import Iterable

from django.core.exceptions import ValidationError

from fma_django.errors import InvalidValue
from fma_django.models import Tag
from fma_django.models.tag import TAG

MAX_TAGS = 64


def tags_of_names(names: Iterable[str]) -> list[Tag]:
    """Raises InvalidValue."""
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
