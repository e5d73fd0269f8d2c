"""Bodies on their way to Django: which are read before a thread is taken, and how far ahead of their reader."""

import asyncio
import json
import threading
import time
from collections import deque
from io import BytesIO
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse

from fma_api.body_pieces import PIECE_BYTES, Pieces, read_pieces
from fma_api.chunked_bodies import read_chunks
from fma_api.front import body as bodies
from fma_api.front import body_places
from fma_api.front.body import AHEAD_BYTES
from fma_api.front.front import FORM_BYTES, FORMS_AT_ONCE, SMALL_BYTES
from fma_api.json_memory import json_memory_of
from fma_core.errors import TruncatedBody
from tests.front.granian import Handler, running

PIECE = bytes(range(256)) * 1024  # 256 KiB


def echo(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.read())


def refuse(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=413)


@pytest.mark.parametrize("pieces", [(), (b"small",), (b"in ", b"two"), (PIECE,), (PIECE, PIECE, b"end")])
def test_a_body_arrives_whole(pieces: Any) -> None:
    with running(Handler(echo)) as front:
        assert front.begin(*pieces, method="POST").wait().body == b"".join(pieces)


def test_a_small_body_that_stalls_holds_no_thread() -> None:
    with running(Handler(echo)) as front:
        stalled = front.begin(b"half", None, method="POST", size=8)
        stalled.has_been_read.wait(5)

        assert front.front.num_threads == 0
        assert front.begin().wait().status == 200


def test_a_small_body_that_is_announced_and_stalls_holds_none_either() -> None:
    with running(Handler(echo)) as front:
        front.begin(b"half", None, method="POST", size=8, headers=[("expect", "100-continue")])

        assert front.begin().wait().status == 200
        assert front.front.num_threads == 1


CHUNKED = [("transfer-encoding", "chunked")]


def test_a_body_in_chunks_that_never_ends_holds_no_thread() -> None:
    with running(Handler(echo)) as front:
        for pieces in ((None,), (b"{", None), (b"x" * SMALL_BYTES, None)):
            asked = front.begin(*pieces, method="POST", size=0, headers=CHUNKED)
            asked.has_been_read.wait(5)

        assert front.front.num_threads == 0
        assert front.begin().wait().status == 200


FORM = [("content-type", "Multipart/Form-Data; boundary=b")]


def test_a_large_form_that_stalls_holds_no_thread() -> None:
    with running(Handler(echo)) as front:
        for pieces in ((None,), (PIECE, None)):
            asked = front.begin(*pieces, method="POST", size=2**20, headers=FORM)
            asked.has_been_read.wait(5)

        assert front.front.num_threads == 0
        assert front.begin().wait().status == 200


def test_a_large_form_arrives_whole() -> None:
    with running(Handler(echo)) as front:
        assert (
            front.begin(PIECE, PIECE, b"end", method="POST", headers=FORM).wait().body == PIECE * 2 + b"end"
        )


def test_a_large_form_that_stalls_too_long_is_a_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SILENCE_S", 0.05)
    with running(Handler(echo)) as front:
        asked = front.begin(PIECE, None, method="POST", size=2**20, headers=FORM).wait()

        assert (asked.status, json.loads(asked.body)["code"]) == (408, "request_timeout")


def test_forms_beyond_the_limit_of_size_are_refused_unread() -> None:
    with running(Handler(echo)) as front:
        asked = front.begin(PIECE, method="POST", size=FORM_BYTES + 1, headers=FORM).wait()

        assert (asked.status, json.loads(asked.body)["code"]) == (413, "too_large")
        assert not asked.has_been_read.is_set()
        assert front.front.num_threads == 0


def test_so_many_large_forms_are_read_at_one_time_and_others_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bodies, "SILENCE_S", 0.5)
    with running(Handler(echo)) as front:
        stalled = [
            front.begin(None, method="POST", size=2**20, headers=FORM, client=f"192.0.2.{number}:1")
            for number in range(FORMS_AT_ONCE)
        ]
        front.until(lambda: all(form.has_been_read.is_set() for form in stalled))
        one_more = front.begin(PIECE, method="POST", headers=FORM)

        assert front.begin(b"small=1", method="POST", headers=FORM).wait().status == 200
        assert not one_more.has_been_read.is_set()
        monkeypatch.setattr(bodies, "SILENCE_S", 60)
        assert front.begin(PIECE, method="POST", headers=FORM).wait().body == PIECE


def test_large_forms_of_one_address_leave_places_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_places, "WAIT_S", 1.0)
    with running(Handler(echo)) as front:
        hostile = [front.begin(None, method="POST", size=2**20, headers=FORM) for _ in range(FORMS_AT_ONCE)]
        front.until(lambda: sum(form.has_been_read.is_set() for form in hostile) == 8)

        assert front.begin(PIECE, method="POST", headers=FORM, client="192.0.2.1:1").wait().body == PIECE
        refused = [form.wait() for form in hostile if not form.has_been_read.is_set()]
        assert [json.loads(form.body)["code"] for form in refused] == ["too_many_bodies"] * 24
        assert {form.status for form in refused} == {429}
        assert front.front.num_threads == 1


def test_a_small_body_in_chunks_has_a_length_once_it_has_ended() -> None:
    def length(request: HttpRequest) -> HttpResponse:
        said = request.META["CONTENT_LENGTH"], request.META.get("HTTP_TRANSFER_ENCODING")
        return HttpResponse(f"{said} {len(request.read())}")

    with running(Handler(length)) as front:
        for pieces in ((), (b"in ", b"two"), (b"x" * SMALL_BYTES,)):
            asked = front.begin(*pieces, method="POST", size=0, headers=CHUNKED).wait()
            size = len(b"".join(pieces))
            assert asked.body.decode() == f"('{size}', None) {size}"


@pytest.mark.parametrize("pieces", [(b"x" * SMALL_BYTES, b"y"), (PIECE,), (b"few", PIECE, PIECE, b"end")])
def test_a_large_body_in_chunks_arrives_whole(pieces: Any) -> None:
    def stream(request: HttpRequest) -> HttpResponse:
        assert "CONTENT_LENGTH" not in request.META
        return HttpResponse(request.META["wsgi.input"].read(2**24))

    with running(Handler(stream)) as front:
        asked = front.begin(*pieces, method="POST", size=0, headers=CHUNKED).wait()

        assert asked.body == b"".join(pieces)


def test_a_body_in_chunks_that_is_small_and_stalls_too_long_is_a_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SILENCE_S", 0.05)
    with running(Handler(echo)) as front:
        asked = front.begin(b"{", None, method="POST", size=0, headers=CHUNKED).wait()

        assert (asked.status, front.front.num_threads) == (408, 0)


def test_a_large_body_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SILENCE_S", 0.2)
    monkeypatch.setattr(bodies, "LEAST_BYTES_PER_S", 1e9)

    loop = asyncio.new_event_loop()
    body = bodies.StreamedBody(loop, None)  # type: ignore[arg-type]
    body._has_begun = True

    def drip() -> None:
        for _ in range(50):
            time.sleep(0.1)
            with body._changed:
                body._pieces.append(memoryview(b"x"))
                body._held_bytes += 1
                body._changed.notify()

    threading.Thread(target=drip, daemon=True).start()
    assert len(body.read(50)) < 10
    loop.close()


def test_a_small_body_that_stalls_too_long_is_a_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SILENCE_S", 0.05)
    with running(Handler(echo)) as front:
        answered = front.begin(b"half", None, method="POST", size=8).wait()
        assert answered.status == 408
        assert json.loads(answered.body)["code"] == "request_timeout"
        assert answered.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("headers", [(), [("expect", "100-continue")]], ids=["large", "expected"])
def test_nothing_is_read_of_what_django_refuses(headers: Any) -> None:
    with running(Handler(refuse)) as front:
        asked = front.begin(b"x" * 10, method="POST", size=10_000_000, headers=headers).wait()

        assert (asked.status, asked.was_read_unanswered) == (413, False)


@pytest.mark.parametrize("first", [0, 10], ids=["unread", "begun"])
def test_the_rest_of_a_refused_body_is_dropped(first: int) -> None:
    def refuse_after(request: HttpRequest) -> HttpResponse:
        request.META["wsgi.input"].read(first)
        return HttpResponse(status=413)

    with running(Handler(refuse_after)) as front:
        asked = front.begin(*[PIECE] * 40, method="POST").wait()

        assert asked.status == 413
        front.until(lambda: asked.taken_bytes == 40 * len(PIECE))


def test_no_more_than_a_bound_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "DROP_BYTES", 4 * len(PIECE))
    with running(Handler(refuse)) as front:
        asked = front.begin(*[PIECE] * 40, method="POST").wait()
        front.until(lambda: asked.taken_bytes > 4 * len(PIECE))
        time.sleep(0.1)

        assert asked.taken_bytes == 5 * len(PIECE)


def test_nothing_is_dropped_of_a_body_that_its_client_holds_back() -> None:
    with running(Handler(refuse)) as front:
        asked = front.begin(PIECE, method="POST", headers=[("expect", "100-continue")]).wait()
        time.sleep(0.1)

        assert not asked.has_been_read.is_set()


def test_an_expected_body_is_read_when_django_wants_it() -> None:
    with running(Handler(echo)) as front:
        asked = front.begin(b"body", method="POST", headers=[("expect", "100-continue")])

        assert asked.wait().body == b"body"


def test_no_more_is_taken_than_a_little_ahead() -> None:
    go_on = threading.Event()

    def slowly(request: HttpRequest) -> HttpResponse:
        first = request.read(10)
        go_on.wait(10)
        return HttpResponse(str(len(first + request.read())))

    num_pieces = 8 * AHEAD_BYTES // len(PIECE)
    with running(Handler(slowly)) as front:
        sent = front.begin(*[PIECE] * num_pieces, method="POST")
        front.until(lambda: sent.taken_bytes > AHEAD_BYTES)
        assert sent.taken_bytes <= AHEAD_BYTES + 2 * len(PIECE)

        go_on.set()

        assert sent.wait().body == str(num_pieces * len(PIECE)).encode()


@pytest.mark.parametrize("pieces", [(PIECE,), (PIECE, b"")], ids=["ended", "broken"])
def test_a_body_that_breaks_off_is_short(pieces: Any) -> None:
    with running(Handler(echo)) as front:
        assert front.begin(*pieces, method="POST", size=10_000_000).wait().body == PIECE


def test_a_large_body_that_stalls_does_not_hold_its_thread_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SILENCE_S", 0.05)
    with running(Handler(echo)) as front:
        assert front.begin(PIECE, None, method="POST", size=10_000_000).wait().body == PIECE


def test_lines_are_read_across_pieces() -> None:
    def lines(request: HttpRequest) -> HttpResponse:
        return HttpResponse("|".join(line.decode() for line in request.readlines()))

    filler = b"x" * bodies.AHEAD_BYTES
    with running(Handler(lines)) as front:
        asked = front.begin(b"one\ntw", b"o\n\nthr", b"ee\n", filler, method="POST")

        assert asked.wait().body == b"one\n|two\n|\n|three\n|" + filler


def test_a_piece_is_given_as_it_came_unless_it_is_small() -> None:
    sizes: list[int] = []

    def by_pieces(request: HttpRequest) -> HttpResponse:
        body, data = request.META["wsgi.input"], b""
        while piece := body.read_piece(2**20):
            sizes.append(len(piece))
            data += piece
        return HttpResponse(data)

    small = PIECE[: bodies.WORTH_BYTES // 4]
    sent = (PIECE, *[small] * 6, PIECE, b"end")
    with running(Handler(by_pieces)) as front:
        assert front.begin(*sent, method="POST").wait().body == b"".join(sent)

    assert sizes == [len(PIECE), 4 * len(small), 2 * len(small) + len(PIECE), 3]


def test_a_few_bytes_do_not_begin_the_minute_anew_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SILENCE_S", 0.3)
    with running(Handler(echo)) as front:
        since = time.monotonic()

        assert front.begin(b"few", None, method="POST", size=10_000_000).wait().body == b"few"
        assert time.monotonic() - since < 0.55


@pytest.mark.parametrize("large", [b"", b" " * SMALL_BYTES], ids=["small", "large"])
def test_a_body_in_chunks_that_breaks_off_is_not_taken_for_whole(large: bytes) -> None:
    def whole(request: HttpRequest) -> HttpResponse:
        try:
            read_chunks(request, read_bytes=2**20)
        except TruncatedBody:
            return HttpResponse("truncated")
        finally:
            json_memory_of(request).close()  # as its middleware does
        return HttpResponse("whole")

    # granian gives one empty piece for the end, and one more before it for a fault.
    announced = ("trailer", "Digest")
    ends: list[Any] = [
        ((b"",), (), b"whole"), ((b"", b""), (), b"truncated"), ((b"", b""), (announced,), b"whole")
    ]  # fmt: skip
    with running(Handler(whole)) as front:
        for end, headers, answered in ends:
            asked = front.begin(b"{}" + large, *end, method="POST", size=0, headers=[*CHUNKED, *headers])
            assert asked.wait().body == answered


def test_a_body_in_chunks_that_is_waited_for_too_long_is_not_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SILENCE_S", 0.2)

    def broken(request: HttpRequest) -> HttpResponse:
        stream = request.META["wsgi.input"]
        return HttpResponse(f"{len(stream.read(2**20))} {stream.is_broken}")

    with running(Handler(broken)) as front:
        assert front.begin(PIECE, None, method="POST", size=0, headers=CHUNKED).wait().body == b"262144 True"


@pytest.mark.parametrize("sizes", [(0,), (1, 7, -1), (300_000, -1), (2**20,), (131_072, 131_073, -1)])
def test_pieces_are_read_as_the_body_they_were(sizes: tuple[int, ...]) -> None:
    pieces = Pieces(deque(read_pieces(BytesIO(PIECE * 2), 2 * len(PIECE) - 1)))
    whole = BytesIO((PIECE * 2)[:-1])

    for size in sizes:
        assert pieces.read(size) == whole.read(size)
    assert pieces.read() == whole.read()
    assert pieces.read(1) == b""


def test_no_piece_of_a_body_is_large() -> None:
    assert max(map(len, read_pieces(BytesIO(PIECE * 2), 2**30))) == PIECE_BYTES < len(PIECE)
