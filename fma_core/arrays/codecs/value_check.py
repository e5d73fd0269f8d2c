"""A check of every value of a canonical file that comes in pieces; a piece may end inside a value."""

from __future__ import annotations

from fma_core.arrays import dtypes
from fma_core.arrays.codecs.header import CanonicalForm
from fma_core.arrays.codecs.values import bad_value, first_bad_value, view_of


class ValueCheck:
    """Check values; call it with each piece of the data, in order. Raises NonFiniteValue or ValueOutOfRange."""

    def __init__(self, form: CanonicalForm) -> None:
        self._form = form
        self._runs = iter(form.runs)
        self._dtype, self._stop = "", 0
        self._at = 0
        self._begun = b""  # the bytes of a value that has not ended

    def __call__(self, piece: bytes | memoryview) -> None:
        left = memoryview(piece)
        while len(left):
            while self._at == self._stop:
                self._dtype, _, self._stop = next(self._runs)
            taken = min(len(left), self._stop - self._at)
            self._look(left[:taken], dtypes.ITEM_SIZES[self._dtype])
            self._at += taken
            left = left[taken:]

    def _look(self, data: memoryview, item_size: int) -> None:
        """Check the next bytes, which are of one dtype."""
        at = self._at - len(self._begun)
        if self._begun:
            missing = item_size - len(self._begun)
            self._begun += data[:missing]
            data = data[missing:]
            if len(self._begun) < item_size:
                return
            self._require(memoryview(self._begun), at)
            at += item_size
        whole = len(data) - len(data) % item_size
        self._require(data[:whole], at)
        self._begun = bytes(data[whole:])

    def _require(self, values: memoryview, at: int) -> None:
        index = first_bad_value(view_of(values, self._dtype), self._dtype)
        if index is not None:
            at += index * dtypes.ITEM_SIZES[self._dtype]
            entry = next(entry for entry in self._form.entries if at < entry.stop)
            raise bad_value(
                entry.array.name, (at - entry.start) // dtypes.ITEM_SIZES[self._dtype], self._dtype
            )
