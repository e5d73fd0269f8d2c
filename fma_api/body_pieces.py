"""Bodies in pieces: to join megabytes holds the interpreter's lock for a tenth of a second."""

from collections import deque
from collections.abc import Iterator
from typing import IO, Any

PIECE_BYTES = 128 * 1024


def read_pieces(stream: IO[Any], most_bytes: int) -> Iterator[bytes]:
    """Read a body up to its end, and no more than so many bytes of it."""
    while most_bytes > 0 and (piece := stream.read(min(most_bytes, PIECE_BYTES))):
        most_bytes -= len(piece)
        yield piece


class Pieces:
    """A stream of pieces, each of which is gone when it has been read."""

    def __init__(self, pieces: deque[bytes]) -> None:
        self._pieces = pieces

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, or all; fewer at the end only."""
        left = size if size >= 0 else sum(map(len, self._pieces))
        taken = []
        while left and self._pieces:
            piece = self._pieces.popleft()
            if len(piece) > left:
                self._pieces.appendleft(piece[left:])
                piece = piece[:left]
            taken.append(piece)
            left -= len(piece)
        return b"".join(taken)
