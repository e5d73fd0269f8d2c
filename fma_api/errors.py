"""Errors of HTTP alone, as a branch of the tree in `fma_core.errors`.

FMAError
├── LengthRequired         length_required
├── InvalidHeader          invalid_header
├── RangeNotSatisfiable    range_not_satisfiable
└── UnsupportedTus         unsupported_tus
"""

from fma_core.errors import FMAError


class LengthRequired(FMAError):
    """A body whose size is not announced."""

    code = "length_required"

    def __init__(
        self,
        message: str = "a body of this kind needs a Content-Length header; only JSON may come in chunks",
        **facts: object,
    ) -> None:
        super().__init__(message, **facts)


class InvalidHeader(FMAError):
    """A header that does not follow its specification."""

    code = "invalid_header"


class RangeNotSatisfiable(FMAError):
    """A range that begins behind the end."""

    code = "range_not_satisfiable"


class UnsupportedTus(FMAError):
    """A version of tus that is not spoken here, or none where one is needed."""

    code = "unsupported_tus"
