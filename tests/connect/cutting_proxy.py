"""A proxy that hangs up in the middle of a request, once, and counts what came from the client."""

import socket
import threading
from contextlib import suppress

PIECE_BYTES = 2**16


class CuttingProxy:
    """cut_at: after how many bytes of the client both sides are hung up on; what came before has been passed on."""

    def __init__(self, host: str, port: int, *, cut_at: int) -> None:
        self.received_bytes = 0
        self.cuts = 0
        self._target = (host, port)
        self._cut_at: int | None = cut_at
        self._lock = threading.Lock()
        self._listener = socket.socket()
        # Small, so that little is on its way when the line is cut.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE_BYTES)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/"

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            for pump, source, to in ((self._count, client, server), (self._pass_on, server, client)):
                threading.Thread(target=pump, args=(source, to), daemon=True).start()

    def _count(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while piece := client.recv(PIECE_BYTES):
                with self._lock:
                    before = self.received_bytes
                    self.received_bytes += len(piece)
                    is_cut = self._cut_at is not None and self.received_bytes >= self._cut_at
                    keep = len(piece) if self._cut_at is None else self._cut_at - before
                    if is_cut:
                        self._cut_at = None
                        self.cuts += 1
                server.sendall(piece[:keep])
                if is_cut:
                    self._drain(client)
                    break
        _hang_up(server)
        _hang_up(client)

    def _drain(self, client: socket.socket) -> None:
        # What has left the client counts, whoever has it.
        client.settimeout(0.05)
        with suppress(TimeoutError):
            while piece := client.recv(PIECE_BYTES):
                self.received_bytes += len(piece)
                client.shutdown(socket.SHUT_RD)

    def _pass_on(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while piece := server.recv(PIECE_BYTES):
                client.sendall(piece)
        _hang_up(client)


def _hang_up(side: socket.socket) -> None:
    with suppress(OSError):
        side.shutdown(socket.SHUT_RDWR)
    side.close()
