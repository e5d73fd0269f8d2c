"""All errors that the server and its client library raise on purpose: one tree, each with a stable code.

    FMAError                                      code
    ├── InvalidSpec                               invalid_spec
    ├── SpecMismatch                              spec_mismatch
    │   ├── MissingArray                          missing_array
    │   ├── UnexpectedArray                       unexpected_array
    │   ├── ShapeMismatch                         shape_mismatch
    │   └── DtypeMismatch                         dtype_mismatch
    ├── InvalidWeights                            invalid_weights
    │   ├── MalformedSafetensors                  malformed_safetensors
    │   ├── MalformedJson                         malformed_json
    │   ├── MalformedZstd                         malformed_zstd
    │   ├── UnsupportedCoding                     unsupported_coding
    │   ├── InvalidQuantisation                   invalid_quantisation
    │   ├── TruncatedBody                         truncated_body
    │   ├── NonFiniteValue                        non_finite_value
    │   ├── ValueOutOfRange                       value_out_of_range
    │   └── TooLarge                              too_large
    ├── InvalidPart                               invalid_part
    │   ├── UnknownPart                           unknown_part
    │   └── InvalidParameter                      invalid_parameter
    ├── InvalidStrategy                           invalid_strategy
    ├── InvalidQuestion                           invalid_question
    ├── InvalidStatistics                         invalid_statistics
    ├── InvalidKey                                invalid_key
    ├── InvalidSignature                          invalid_signature
    ├── InvalidCertificate                        invalid_certificate
    └── AggregationError                          aggregation_error
        ├── NoUpdates                             no_updates
        ├── UnreadableUpdate                      unreadable_update
        ├── UnreadableModel                       unreadable_model
        ├── NonFiniteResult                       non_finite_result
        └── NegativeVariance                      negative_variance

Codes are part of the public interface: they appear in API answers and in the records of rounds, and never change.
Other packages add their own branches under FMAError.
"""

from __future__ import annotations

from typing import Any, ClassVar


class FMAError(Exception):
    """An error that the caller can act on: a sentence, its facts as fields, and a stable code."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts: dict[str, Any] = facts

    # Pickle rebuilds exceptions from `args` alone: from a worker process they would come without their facts.
    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.facts)


def _rebuild(kind: type[FMAError], message: str, facts: dict[str, Any]) -> FMAError:
    return kind(message, **facts)


class InvalidSpec(FMAError):
    """A spec that no model can have: a bad name, shape or dtype, or no parameters at all."""

    code = "invalid_spec"


class SpecMismatch(FMAError):
    """Arrays that do not match the model's spec."""

    code = "spec_mismatch"


class MissingArray(SpecMismatch):
    """An array of the spec that was not sent."""

    code = "missing_array"


class UnexpectedArray(SpecMismatch):
    """An array that the spec does not name."""

    code = "unexpected_array"


class ShapeMismatch(SpecMismatch):
    """An array of another shape than the spec says."""

    code = "shape_mismatch"


class DtypeMismatch(SpecMismatch):
    """An array of another dtype than the spec says."""

    code = "dtype_mismatch"


class InvalidWeights(FMAError):
    """Bytes or values that are not weights."""

    code = "invalid_weights"


class MalformedSafetensors(InvalidWeights):
    """Bytes that break the safetensors format."""

    code = "malformed_safetensors"


class MalformedJson(InvalidWeights):
    """JSON that cannot be parsed, or that is in none of the three layouts."""

    code = "malformed_json"


class MalformedZstd(InvalidWeights):
    """Bytes that are not one zstd frame, or a frame that needs too much memory to read."""

    code = "malformed_zstd"


class UnsupportedCoding(InvalidWeights):
    """A body in a Content-Encoding that is not supported."""

    code = "unsupported_coding"


class InvalidQuantisation(InvalidWeights):
    """Quantised weights that cannot be widened, or whose header does not say how."""

    code = "invalid_quantisation"


class TruncatedBody(InvalidWeights):
    """A body that ended before its announced size."""

    code = "truncated_body"


class NonFiniteValue(InvalidWeights):
    """A NaN or an infinity among the values."""

    code = "non_finite_value"


class ValueOutOfRange(InvalidWeights):
    """A value that the array's dtype cannot hold exactly."""

    code = "value_out_of_range"


class TooLarge(InvalidWeights):
    """More bytes or arrays than the limits allow."""

    code = "too_large"


class InvalidPart(FMAError):
    """A part (aggregator, requirement, …) that cannot be built from its name and parameters."""

    code = "invalid_part"


class UnknownPart(InvalidPart):
    """A name under which no part of this kind is registered, or whose plugin cannot be loaded."""

    code = "unknown_part"


class InvalidParameter(InvalidPart):
    """A parameter that is unknown, missing, or of the wrong type or range."""

    code = "invalid_parameter"


class InvalidStrategy(FMAError):
    """Parts that cannot be combined."""

    code = "invalid_strategy"


class InvalidQuestion(FMAError):
    """A question that no evaluation can ask: an unknown task, invalid labels, or too many counts."""

    code = "invalid_question"


class InvalidStatistics(FMAError):
    """Counts and sums that cannot be an answer to the question."""

    code = "invalid_statistics"


class InvalidKey(FMAError):
    """Bytes or text that are no key, or one that nobody should trust."""

    code = "invalid_key"


class InvalidSignature(FMAError):
    """A signature of another key, or over something else."""

    code = "invalid_signature"


class InvalidCertificate(FMAError):
    """A certificate that is damaged, forged, expired, for another key, or of an issuer whom nobody here trusts."""

    code = "invalid_certificate"


class AggregationError(FMAError):
    """An aggregation that cannot give a result."""

    code = "aggregation_error"


class NoUpdates(AggregationError):
    """Too few updates, or no update with a weight above 0."""

    code = "no_updates"


class UnreadableUpdate(AggregationError):
    """A stored file of an update that is missing, too short, or not in the model's canonical layout."""

    code = "unreadable_update"


class UnreadableModel(AggregationError):
    """Stored weights or state of a round's start that are missing, too short, or not of the model's spec."""

    code = "unreadable_model"


class NonFiniteResult(AggregationError):
    """A result that overflowed the model's dtype, or is not a number."""

    code = "non_finite_result"


class NegativeVariance(AggregationError):
    """A result in which an array of variances has a negative value."""

    code = "negative_variance"
