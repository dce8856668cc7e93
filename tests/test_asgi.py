"""The ASGI middleware: what could be a picture is checked, what is blocked goes no further, the rest is untouched."""

import asyncio
import email
import email.policy
import os
import re
import threading
import tracemalloc
from io import BytesIO

import numpy as np
import pytest
import uploads
from conftest import PHOTOS, ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from uploads import (
    BOUNDARY,
    NO_MATCH,
    Application,
    RecordingMatcher,
    chunks,
    decision,
    form,
    form_headers,
    part,
    request,
)
from werkzeug.formparser import parse_form_data

from ncii_match.adapters import asgi_body
from ncii_match.adapters.asgi import CheckUploads, Problems, Refusal
from ncii_match.adapters.asgi_body import SNIFFED, Spool, looks_like_picture
from ncii_match.adapters.asgi_multipart import Multipart
from ncii_match.bank.bank import Bank
from ncii_match.decisions import Policy
from ncii_match.decode.limits import DecodeLimits
from ncii_match.errors import InputError
from ncii_match.ingest import hash_images
from ncii_match.matcher import Matcher
from ncii_match.outcomes import Action, Outcome, Status

SEED, CONFIRMED, OTHER = ((PHOTOS / name).read_bytes() for name in ("coffee.png", "astronaut.png", "rocket.jpg"))
PNG = b"\x89PNG\r\n\x1a\n"


def as_format(name, **options):
    stream = BytesIO()
    Image.open(PHOTOS / "astronaut.png").convert("RGB").resize((96, 96)).save(stream, name, **options)
    return stream.getvalue()


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    path = tmp_path_factory.mktemp("asgi") / "bank"
    with Bank.create(path) as made:
        made.add(hash_images([SEED]), case="R-seed", source="test")
        made.add(hash_images([CONFIRMED]), case="R-confirmed", source="test", state="confirmed")
        made.publish()
    return path


@pytest.fixture(scope="module")
def matcher(bank):
    with Matcher(bank, workers=2, isolation="thread") as made:
        yield made


@pytest.fixture
def app():
    return Application()


def send_form(checked, *parts, **more):
    return request(checked, [form(*parts)], form_headers(), **more)


# What passes, and what does not


def test_a_picture_for_review_passes_with_its_decision_and_the_same_bytes(matcher, app):
    body = form(part(b"Ann", "who"), part(SEED, filename="a.png", content_type="image/png"), part(OTHER, filename="b"))
    answer = request(CheckUploads(app, matcher), chunks(body, 5000), form_headers())
    assert (answer.status, app.bodies) == (204, [body])
    who, seed, other = app.upload.parts
    assert (who.name, who.filename, who.size, who.decision) == ("who", None, 3, None)
    assert (seed.name, seed.filename, seed.content_type, seed.size) == ("picture", "a.png", "image/png", len(SEED))
    assert (seed.decision.outcome, seed.decision.cases) == (Outcome.MATCH, ("R-seed",))
    assert other.decision.outcome is Outcome.NO_MATCH
    assert (app.upload.action, app.upload.refusal, len(app.upload.decisions)) == (Action.REVIEW, None, 2)


def test_a_blocked_picture_goes_no_further_and_the_answer_tells_nothing_about_the_bank(matcher, app):
    answer = send_form(CheckUploads(app, matcher), part(SEED), part(CONFIRMED, filename="x.png"), part(OTHER))
    assert (answer.status, answer.code, app.calls) == (422, "blocked", 0)
    assert answer.headers["content-type"] == "application/problem+json"
    assert not re.search(rb"R-|distance|entry|confirmed|seed|astronaut", answer.body)


def test_a_refusal_may_have_another_status_or_another_answer(matcher, app):
    checked = CheckUploads(app, matcher, refuse=Problems(blocked=451))
    assert send_form(checked, part(CONFIRMED)).status == 451
    seen = []

    async def page(scope, receive, send):
        seen.append(scope["ncii_match"])
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    assert send_form(CheckUploads(app, matcher, refuse=page), part(SEED), part(CONFIRMED)).body == b"no"
    assert (seen[0].refusal, seen[0].action, app.calls) == (Refusal.BLOCKED, Action.BLOCK, 0)
    assert [one.decision.cases for one in seen[0].parts] == [("R-seed",), ("R-confirmed",)]


@pytest.mark.parametrize(
    ("filename", "content_type"),
    [(None, None), (None, "text/plain"), ("notes.txt", "text/plain"), ("a.pdf", "application/pdf"), (None, "x/y; z")],
)
@pytest.mark.parametrize("files", ["all", "pictures"])
def test_a_part_that_lies_about_its_content_is_checked(matcher, app, files, filename, content_type):
    lie = part(CONFIRMED, filename=filename, content_type=content_type)
    assert send_form(CheckUploads(app, matcher, files=files), lie).code == "blocked"
    assert app.calls == 0


@pytest.mark.parametrize("name", ["AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP", "ICO", "JPEG2000"])
def test_every_format_is_recognised_without_being_named(app, name):
    picture, recorder = as_format(name), RecordingMatcher(NO_MATCH)
    send_form(CheckUploads(app, recorder, files="pictures"), part(picture), part(b"plain text"))
    request(CheckUploads(app, recorder, files="pictures"), [picture], [("content-type", "application/json")])
    assert recorder.seen == [picture, picture]


def test_what_is_sent_as_a_file_and_is_no_picture(matcher, app):
    parts = [
        part(b"%PDF-1.7 ...", filename="a.pdf", content_type="application/pdf"),
        part(b"no picture", content_type="image/png"),
        part(b"no picture", content_type="application/octet-stream"),
        part(b"BMW is a car, and this text has more than eighteen letters", "filename"),
        part(b"", filename="nothing chosen", content_type="image/png"),
    ]
    for files, looked_at in (("all", [0, 1, 2]), ("pictures", [1])):
        assert send_form(CheckUploads(app, matcher, files=files), *parts).status == 204
        found = [one.decision for one in app.upload.parts]
        assert [k for k, one in enumerate(found) if one is not None] == looked_at
        assert {one.outcome for one in found if one} == {Outcome.UNREADABLE}
        assert app.upload.action is Action.REVIEW


def test_a_picture_that_cannot_be_read_follows_the_policy(bank, app):
    policy = Policy(on_unreadable=Action.BLOCK)
    with Matcher(bank, workers=1, policy=policy, isolation="thread") as strict:
        assert send_form(CheckUploads(app, strict), part(SEED[: len(SEED) // 2])).code == "blocked"
        assert send_form(CheckUploads(app, strict), part(b"text")).status == 204


@pytest.mark.parametrize("headers", [[], [("content-type", "image/png")], [("content-type", "text/html")]])
def test_a_body_that_is_a_picture_is_checked(matcher, app, headers):
    checked = CheckUploads(app, matcher)
    assert request(checked, chunks(CONFIRMED, 100), headers).code == "blocked"
    assert request(checked, chunks(SEED, 1000), headers).status == 204
    assert app.bodies == [SEED]
    assert [one.outcome for one in app.upload.decisions] == [Outcome.MATCH]


def test_other_bodies_pass_as_they_come(matcher):
    """The application begins after the first bytes: the rest of the body, here without an end, is not waited for."""
    first = b'{"text": "' + b"x" * SNIFFED
    asked = []

    async def receive():
        asked.append(1)
        return {"type": "http.request", "body": first if len(asked) == 1 else b"more", "more_body": True}

    async def app(scope, receive, send):
        assert scope["ncii_match"].parts == ()
        assert await receive() == {"type": "http.request", "body": first, "more_body": True}
        for _ in range(1000):
            assert await receive() == {"type": "http.request", "body": b"more", "more_body": True}

    headers = [(b"content-type", b"application/json"), (b"content-length", b"1000000000000")]
    asyncio.run(CheckUploads(app, matcher, max_body=10)({"type": "http", "headers": headers}, receive, None))
    assert len(asked) == 1001


def test_a_request_without_a_body_passes(matcher, app):
    for headers in ([], form_headers(), [("content-encoding", "gzip")]):
        assert request(CheckUploads(app, matcher), [b""], headers, method="GET").status == 204
    assert app.bodies == [b"", b"", b""]


@pytest.mark.parametrize("kind", ["websocket", "lifespan", "something.new"])
def test_other_connections_are_not_touched(matcher, kind):
    seen = []

    async def app(*given):
        seen.append(given)

    given = ({"type": kind}, object(), object())
    asyncio.run(CheckUploads(app, matcher)(*given))
    assert all(one is other for one, other in zip(seen[0], given, strict=True))


# The same bytes


SOME_CONTENT = st.binary(max_size=300) | st.sampled_from(
    [PNG + b"x", b"\r\n", b"-", b"--", b"\r\n--", BOUNDARY.encode()[:-1]]
)
SOME_PARTS = st.lists(
    st.builds(
        part,
        SOME_CONTENT,
        st.sampled_from(["a", "b c", "é"]),
        st.none() | st.just("f.png"),
        st.sampled_from([None, "text/plain", "image/png"]),
    ),
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(SOME_PARTS, st.integers(1, 400), st.integers(1, 2000), st.sampled_from([b"", b"\r\n"]))
def test_the_application_gets_the_same_bytes_of_a_form(parts, size, in_memory, end):
    body, app, recorder = form(*parts, end=end), Application(), RecordingMatcher(NO_MATCH)
    checked = CheckUploads(app, recorder, in_memory=in_memory)
    assert request(checked, chunks(body, size), form_headers()).status == 204
    assert app.bodies == [body]
    contents = [one.partition(b"\r\n\r\n")[2] for one in parts]
    assert [one.size for one in app.upload.parts] == [len(one) for one in contents]
    looked_at = [one.decision is not None for one in app.upload.parts]
    assert recorder.seen == [one for one, looked in zip(contents, looked_at, strict=True) if looked]
    assert all(looked for one, looked in zip(contents, looked_at, strict=True) if looks_like_picture(one))


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=3000), st.integers(1, 700), st.integers(1, 4000), st.sampled_from(["image/png", "text/css", ""])
)
def test_the_application_gets_the_same_bytes_of_any_body(body, size, in_memory, kind):
    app, recorder = Application(), RecordingMatcher(NO_MATCH)
    headers = [("content-type", kind)] if kind else []
    assert request(CheckUploads(app, recorder, in_memory=in_memory), chunks(body, size), headers).status == 204
    assert app.bodies == [body]
    assert recorder.seen in ([], [body])
    assert bool(recorder.seen) == (bool(body) and (kind != "text/css" or looks_like_picture(body)))


# Bodies that two parsers may read differently

PICTURE = PNG + b"a picture"
GOOD = form(part(b"text"), part(PICTURE, "p"))
MARK = b"--" + BOUNDARY.encode()

MALFORMED = {
    "no end": GOOD[:-6],
    "cut": GOOD[:-40],
    "preamble": b"hello\r\n" + GOOD,
    "line break before": b"\r\n" + GOOD,
    "epilogue": GOOD + b"more",
    "second body behind": GOOD + GOOD,
    "line feeds only": GOOD.replace(b"\r\n", b"\n"),
    "line feeds around a delimiter": form(part(b"text\n" + MARK + b"\nContent-Type: image/png\n\n" + PICTURE)),
    "last delimiter within a line": form(part(b"text"))[: -len(MARK) - 6] + MARK + b"--\r\n",
    "delimiter within a line": form(part(b"text" + MARK + b"\r\nA: b\r\n\r\n" + PICTURE)),
    "spaces after a delimiter": GOOD.replace(MARK + b"\r\n", MARK + b" \r\n", 1),
    "spaces after a later delimiter": (MARK + b" \r\n").join(GOOD.rsplit(MARK + b"\r\n", 1)),
    "letters after a delimiter": GOOD.replace(MARK + b"\r\n", MARK + b"x\r\n", 1),
    "line feed in a header": form(part(PICTURE, more=["A: b\nContent-Transfer-Encoding: base64"])),
    "zero in a header": form(part(PICTURE, more=["A: b\0c"])),
    "folded header": form(part(PICTURE, more=["A: b", " c"])),
    "header twice": form(part(PICTURE, content_type="image/png", more=["content-type: text/plain"])),
    "no colon": form(part(PICTURE, more=["A"])),
    "no headers": form(b"\r\n" + part(PICTURE)),
    "no blank line": form(b"A: b\r\nc"),
    "many headers": form(part(PICTURE, more=[f"A{k}: b" for k in range(50)])),
    "long header": form(part(PICTURE, more=["A: " + "b" * 10_000])),
}


@pytest.mark.parametrize("size", [1, 7, 10**6])
@pytest.mark.parametrize("name", MALFORMED)
def test_a_form_that_is_not_well_formed_is_refused(app, name, size):
    checked = CheckUploads(app, RecordingMatcher(NO_MATCH))
    answer = request(checked, chunks(MALFORMED[name], size), form_headers())
    assert (answer.status, answer.code, app.calls) == (400, "malformed", 0)
    assert request(checked, chunks(GOOD, size), form_headers()).status == 204


def test_a_parser_that_miscounts_is_not_believed(app, monkeypatch):
    for wrong in (-1, 1):

        def count(self, data, start, end, wrong=wrong):
            self._parts[-1].length += end - start + wrong

        monkeypatch.setattr(Multipart, "_data", count)
        assert request(CheckUploads(app, RecordingMatcher(NO_MATCH)), [GOOD], form_headers()).code == "malformed"
    assert app.calls == 0


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=a; Boundary*=b",
        "multipart/form-data; boundary*=utf-8''a",
        "multipart/form-data; boundary*0=a; boundary*1=b",
        "multipart/form-data; boundary=a, multipart/form-data; boundary=b",
        'multipart/form-data; x="; boundary=a; y=\\""; boundary=b',
        'multipart/form-data; boundary="a\\"b"',
        'multipart/form-data; boundary="a "',
        "multipart/form-data; boundary=" + "a" * 71,
        "multipart/form-data boundary=a",
        "text/plain, multipart/form-data; boundary=a",
        "x-multipart/form-data; boundary=a",
    ],
)
def test_a_boundary_that_is_not_clear_is_refused(app, content_type):
    checked = CheckUploads(app, RecordingMatcher(NO_MATCH))
    assert request(checked, [form(part(PICTURE), boundary="a")], [("content-type", content_type)]).code == "malformed"
    assert app.calls == 0


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=a",
        " Multipart/Form-Data;BOUNDARY=a ;",
        'multipart/form-data; charset=utf-8; boundary="a"; x="y z"',
        'multipart/related; type="image/png"; boundary=a',
        "multipart/mixed;boundary=a",
    ],
)
def test_a_boundary_that_is_clear_is_taken(app, content_type):
    recorder = RecordingMatcher(NO_MATCH)
    body = form(part(PICTURE), boundary="a")
    assert request(CheckUploads(app, recorder), [body], [("content-type", content_type)]).status == 204
    assert recorder.seen == [PICTURE]


CLIENTS = {
    "Chrome": ("----WebKitFormBoundary7MA4YWxkTrZu0gW", "{}", []),
    "Firefox": ("---------------------------9051914041544843365972754266", "{}", []),
    "Firefox, later": ("----geckoformboundaryd8a1b0c2e3f4a5b6c7d8e9f0a1b2c3d4", "{}", []),
    "curl": ("------------------------d74496d66958873e", "{}", []),
    "requests": ("c0c46a5929c2ce4c935c9cff85bf11d4", "{}", []),
    "OkHttp": ("2f1d6b52-5a21-4c0e-9d0f-7f6ce2b3a9ad", "{}", ["Content-Length: 17"]),
    ".NET": ("8f2cbb1a-0d2f-4b5f-9a3a-52d30e6e8b5e", '"{}"', []),
    "Apache HttpClient": ("kP-_0aZ1x8Wc3", "{}; charset=UTF-8", ["Content-Transfer-Encoding: binary"]),
    "Dart": ("dart-http-boundary-Zr+Q_x.3", "{}", ["content-transfer-encoding: binary"]),
    "CFNetwork": ("Boundary+0xAbCdEf", "{}", []),
    "undici": ("----formdata-undici-047284529614", "{}", []),
    "LWP": ("xYzZY", "{}", []),
    "JavaMail": ("----=_Part_1_807605693.1549", '"{}"', ["Content-ID: <a@b>"]),
}
"""How each writes a boundary, and what headers it adds."""


@pytest.mark.parametrize("client", CLIENTS)
def test_forms_as_clients_write_them_are_taken(app, client):
    boundary, written, more = CLIENTS[client]
    recorder = RecordingMatcher(NO_MATCH)
    parts = [
        part(b"line one\r\nline two\n\n--", "t"),
        part(PICTURE, "é%22", "\u5199\u771f.png", "image/png", more),
        part(b"", "n", "n"),
    ]
    for end in (b"\r\n", b""):
        body = form(*parts, boundary=boundary, end=end)
        headers = [("content-type", f"multipart/form-data; boundary={written.format(boundary)}")]
        assert request(CheckUploads(app, recorder), chunks(body, 100), headers).status == 204
    assert recorder.seen == [PICTURE, PICTURE]
    assert [one.filename for one in app.upload.parts] == [None, "\u5199\u771f.png", "n"]


def test_two_content_types_are_refused(app):
    headers = [("content-type", "text/plain"), *form_headers()]
    assert request(CheckUploads(app, RecordingMatcher(NO_MATCH)), [GOOD], headers).code == "malformed"
    assert request(CheckUploads(app, RecordingMatcher(NO_MATCH)), [GOOD], headers[::-1]).code == "malformed"
    assert app.calls == 0


@pytest.mark.parametrize(
    "more",
    [
        ["Content-Transfer-Encoding: base64"],
        ["content-transfer-ENCODING: Quoted-Printable"],
        ["Content-Encoding: gzip"],
        ["Content-Type: multipart/mixed; boundary=inner"],
        ["Content-Type: x; MULTIPART/mixed"],
    ],
)
def test_a_part_that_would_have_to_be_undone_is_refused(app, more):
    inner = form(part(PICTURE), boundary="inner")
    answer = send_form(CheckUploads(app, RecordingMatcher(NO_MATCH)), part(inner, more=more))
    assert (answer.status, answer.code, app.calls) == (415, "encoded", 0)
    plain = part(PICTURE, more=["Content-Transfer-Encoding: Binary"])
    assert send_form(CheckUploads(app, RecordingMatcher(NO_MATCH)), plain).status == 204


@pytest.mark.parametrize("encoding", ["gzip", "identity, br", "x"])
def test_an_encoded_body_is_refused(app, encoding):
    headers = [*form_headers(), ("content-encoding", encoding)]
    assert request(CheckUploads(app, RecordingMatcher(NO_MATCH)), [GOOD], headers).code == "encoded"
    assert app.calls == 0
    headers = [*form_headers(), ("content-encoding", "Identity")]
    assert request(CheckUploads(app, RecordingMatcher(NO_MATCH)), [GOOD], headers).status == 204


TOKENS = st.sampled_from([
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\n", b"--", b"-", b" ", b"\t", b":", b"\0", b"B", b"--B", b"\r\n--B",
    b"\n--B", b"\r\n--B\r\n", b"\r\n--B--", b"\n--B\n", b"--B--\r\n", PICTURE, b"A: b",
    b"Content-Disposition: form-data; name=x",
    b'Content-Disposition: form-data; name="y"; filename="z"', b"Content-Type: text/plain", b"Content-Type: image/png",
])  # fmt: skip


@st.composite
def damaged_forms(draw):
    """A form that was tampered with in one to four places."""
    parts = draw(
        st.lists(st.sampled_from([part(b"text"), part(PICTURE, "p", "f.png"), part(b"", "q", "g")]), max_size=3)
    )
    body = form(*parts, boundary="B")
    for _ in range(draw(st.integers(1, 4))):
        at, cut = draw(st.integers(0, len(body))), draw(st.sampled_from([0, 0, 1, 2, 4, 30]))
        body = body[:at] + draw(TOKENS) + body[at + cut :]
    return body


def contents_by_werkzeug(body):
    wsgi = {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body)), "REQUEST_METHOD": "POST"}
    wsgi["CONTENT_TYPE"] = "multipart/form-data; boundary=B"
    _, fields, files = parse_form_data(wsgi, stream_factory=lambda **_: BytesIO())
    found = [one.read() for group in files.listvalues() for one in group]
    return found + [one.encode("utf-8", "replace") for group in fields.listvalues() for one in group]


def contents_by_email(body):
    message = email.message_from_bytes(
        b"Content-Type: multipart/form-data; boundary=B\r\n\r\n" + body, policy=email.policy.HTTP
    )
    return [one.get_payload(decode=True) for one in message.walk() if not one.is_multipart()]


@settings(max_examples=400, deadline=None)
@given(damaged_forms(), st.integers(1, 100))
def test_no_other_parser_sees_a_picture_that_was_not_checked(body, size):
    app, recorder = Application(), RecordingMatcher(NO_MATCH)
    checked = CheckUploads(app, recorder, files="pictures")
    if request(checked, chunks(body, size), form_headers("B")).status == 204:
        for theirs in (contents_by_werkzeug(body), contents_by_email(body)):
            assert {one for one in theirs if one.startswith(PNG)} <= set(recorder.seen)


# Bounds


def test_bounds_are_inclusive(app):
    recorder = RecordingMatcher(NO_MATCH)
    for most, status in ((len(GOOD) - 1, 413), (len(GOOD), 204)):
        checked = CheckUploads(app, recorder, max_body=most)
        for headers in (form_headers(), [*form_headers(), ("content-length", str(len(GOOD)))]):
            for size in (1, 100, 10**6):
                assert request(checked, chunks(GOOD, size), headers).status == status
    for bound, code in (("max_parts", "too_many_parts"), ("max_pictures", "too_many_parts")):
        three = form(*[part(PICTURE)] * 3)
        answer = request(CheckUploads(app, recorder, **{bound: 2}), [three], form_headers())
        assert (answer.status, answer.code) == (413, code)
        assert request(CheckUploads(app, recorder, **{bound: 3}), [three], form_headers()).status == 204
    picture = PICTURE + bytes(1000)
    for most, status in ((len(picture) - 1, 413), (len(picture), 204)):
        assert request(CheckUploads(app, recorder, max_body=most), chunks(picture, 99)).status == status


def test_a_body_that_is_too_large_is_read_on_for_a_while_and_never_kept(app):
    """So that a client that sends first and listens later gets its answer; one that waits to be asked is not asked."""
    asked = []

    def ask(headers):
        asked.clear()

        async def receive():
            asked.append(1)
            return {"type": "http.request", "body": bytes(1000), "more_body": True}

        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "http_version": "1.1", "headers": [(k.encode(), v.encode()) for k, v in headers]}
        asyncio.run(CheckUploads(app, RecordingMatcher(NO_MATCH), max_body=10_000)(scope, receive, send))
        return uploads.Answer(sent)

    typed, waits = form_headers(), ("expect", "100-continue")
    for headers, status, least, most in (
        (typed, 400, 20, 32),
        ([], 413, 20, 32),
        ([*typed, ("content-length", "15000")], 413, 20, 32),
        ([*typed, ("content-length", "20001")], 413, 0, 0),
        ([*typed, ("content-length", "15000"), waits], 413, 0, 0),
        ([("content-length", "15000"), waits], 413, 20, 32),  # asked already, to see what it is
        ([*typed, ("content-type", "text/plain")], 400, 20, 32),
    ):
        answer = ask(headers)
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert least <= len(asked) <= most, headers
    assert app.calls == 0


def test_a_body_may_be_as_long_as_a_picture():
    checked = CheckUploads(app, RecordingMatcher(NO_MATCH))
    assert checked.max_body == DecodeLimits().max_bytes
    guide = (ROOT / "docs" / "upload-pipelines.md").read_text()
    assert f"more than `max_body` bytes ({checked.max_body >> 20} MiB)" in guide


@pytest.mark.parametrize("name", ["max_body", "max_parts", "max_pictures", "in_memory"])
def test_bounds_that_make_no_sense(app, name):
    with pytest.raises(InputError, match=f"{name} is 0"):
        CheckUploads(app, None, **{name: 0})
    with pytest.raises(InputError, match="files is 'some'"):
        CheckUploads(app, None, files="some")


def test_memory_does_not_grow_with_the_body():
    """40 MB in parts that are not taken for pictures, and a picture: what is held is about ``in_memory``."""
    size, pieces = 1 << 16, 640

    class Drain(Application):
        async def __call__(self, scope, receive, send):
            while (await receive())["more_body"]:
                self.calls += 1
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    def body():
        yield MARK + b"\r\n" + part(b"")
        yield from (b"x" * size for _ in range(pieces))
        yield b"\r\n" + form(part(PICTURE))

    stream, app, recorder, sent = body(), Drain(), RecordingMatcher(NO_MATCH), []
    pieces_left = pieces + 2

    async def receive():
        nonlocal pieces_left
        pieces_left -= 1
        return {"type": "http.request", "body": next(stream), "more_body": pieces_left > 0}

    async def send(message):
        sent.append(message)

    checked = CheckUploads(app, recorder, in_memory=1 << 20)
    scope = {"type": "http", "headers": [(k.encode(), v.encode()) for k, v in form_headers()]}
    tracemalloc.start()
    try:
        asyncio.run(checked(scope, receive, send))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (sent[0]["status"], app.calls, recorder.seen) == (204, pieces, [PICTURE])
    assert peak < 5 * (1 << 20)


def test_nothing_is_left_open(app):
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    for body in (GOOD, GOOD[:-6], form(part(PICTURE + bytes(10_000)))):
        request(CheckUploads(app, RecordingMatcher(NO_MATCH), in_memory=10), chunks(body, 50), form_headers())
    app.scopes.clear()
    after = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    assert after <= before


def test_a_spool_says_so_when_its_file_is_cut():
    spool = Spool(4)
    for piece in (b"ab", b"cd", b"efg"):
        spool.append(piece)
    assert (len(spool), spool.read(0, 99), spool.read(3, 2), spool.read(9, 2)) == (7, b"abcdefg", b"de", b"")
    os.ftruncate(spool._file, 5)
    with pytest.raises(OSError, match="shorter than what was written"):
        spool.read(0, 7)


# Could not look


@pytest.mark.parametrize(
    ("on_unknown", "refuse_unknown", "status"),
    [
        (Action.REVIEW, True, 503),
        (Action.REVIEW, False, 204),
        (Action.BLOCK, True, 503),
        (Action.BLOCK, False, 503),
        (Action.ALLOW, True, 204),
        (Action.ALLOW, False, 204),
    ],
)
def test_unknown_is_refused_or_marked_and_never_no_match(bank, app, on_unknown, refuse_unknown, status):
    policy = Policy(on_unknown=on_unknown, max_age=1e-9)
    with Matcher(bank, workers=1, policy=policy, isolation="thread") as stale:
        answer = send_form(CheckUploads(app, stale, refuse_unknown=refuse_unknown), part(OTHER))
    assert answer.status == status
    if status == 503:
        assert (answer.code, answer.headers["retry-after"], app.calls) == ("unknown", "5", 0)
    else:
        assert [(one.outcome, one.action) for one in app.upload.decisions] == [(Outcome.UNKNOWN, on_unknown)]


class Failing:
    """A matcher whose answers are errors, but for the first ``good``."""

    def __init__(self, error, good=0):
        self.error, self.good = error, good

    async def acheck(self, image):
        self.good -= 1
        if self.good >= 0:
            return NO_MATCH
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("a bug"), MemoryError(), InputError("closed"), OSError("disk")])
def test_an_error_in_a_check_is_never_allowed(app, caplog, error):
    for good in (0, 1):
        answer = send_form(CheckUploads(app, Failing(error, good)), part(PICTURE), part(PICTURE))
        assert (answer.status, answer.code, app.calls) == (503, "unknown", 0)
    assert [record.exc_info[1] for record in caplog.records] == [error, error]


def test_a_closed_matcher_is_never_allowed(bank, app):
    closed = Matcher(bank, isolation="thread")
    closed.close()
    assert send_form(CheckUploads(app, closed), part(OTHER)).code == "unknown"
    assert app.calls == 0


@pytest.mark.parametrize("function", ["write", "pread"])
def test_a_disk_that_fails_is_never_allowed(matcher, app, monkeypatch, function):
    def fails(*_):
        raise OSError("no space")

    monkeypatch.setattr(asgi_body.os, function, fails)
    answer = request(CheckUploads(app, matcher, in_memory=1000), chunks(form(part(OTHER)), 500), form_headers())
    assert (answer.code, app.calls) == ("unknown", 0)


def test_a_spool_that_cannot_be_read_while_checking_is_not_a_bad_picture(bank, app, monkeypatch):
    """Even where the policy lets unreadable pictures pass."""
    policy = Policy(on_unreadable=Action.ALLOW)
    real, main = os.pread, threading.get_ident()

    def fails(*given):
        if threading.get_ident() != main:
            raise OSError("input/output error")
        return real(*given)

    monkeypatch.setattr(asgi_body.os, "pread", fails)
    with Matcher(bank, workers=1, policy=policy, isolation="thread") as lenient:
        answer = request(CheckUploads(app, lenient, in_memory=1000), chunks(form(part(OTHER)), 500), form_headers())
    assert (answer.code, app.calls) == ("unknown", 0)


def test_blocked_speaks_before_unknown(app):
    class InTurn:
        def __init__(self, *decisions):
            self.decisions = list(decisions)

        async def acheck(self, image):
            return self.decisions.pop(0)

    unknown, blocked = decision(Outcome.UNKNOWN, Action.REVIEW), decision(Outcome.MATCH, Action.BLOCK)
    unreadable = decision(Outcome.UNREADABLE, Action.ALLOW, Status.CANNOT_READ)
    for turns, code in (
        ([unknown, blocked, NO_MATCH], "blocked"),
        ([blocked, unknown, NO_MATCH], "blocked"),
        ([NO_MATCH, unknown, NO_MATCH], "unknown"),
        ([NO_MATCH, unreadable, NO_MATCH], "unknown"),
    ):
        assert send_form(CheckUploads(app, InTurn(*turns)), *[part(PICTURE)] * 3).code == code
    assert app.calls == 0


def test_a_late_answer_is_unknown_while_the_picture_is_still_read(bank, app, monkeypatch):
    """The check that goes on in its thread reads the spool after the request is over, and finds it whole."""
    go, read = threading.Event(), []
    real = asgi_body.Section.read

    def slow(self, size=-1, /):
        go.wait(10)
        read.append(real(self, size))
        return read[-1]

    monkeypatch.setattr(asgi_body.Section, "read", slow)
    policy = Policy(deadline=0.05)
    with Matcher(bank, workers=1, policy=policy, isolation="thread") as hasty:
        # asyncio.run waits for the default executor only, which is not where checks run
        answer = request(CheckUploads(app, hasty, in_memory=100), chunks(form(part(OTHER)), 500), form_headers())
        assert (answer.code, app.calls) == ("unknown", 0)
        go.set()
        hasty._executor().shutdown(wait=True)
    assert b"".join(read) == OTHER


# Clients that leave


@pytest.mark.parametrize("pieces", [[b""], [GOOD[:30]], [GOOD[:600], GOOD[600:]]])
def test_a_client_that_leaves_before_the_end_gets_no_answer_and_the_application_no_request(app, pieces):
    recorder = RecordingMatcher(NO_MATCH)
    answer = request(CheckUploads(app, recorder), pieces, form_headers(), leaves=True)
    assert not answer.started
    assert (app.calls, recorder.seen) == (0, [])


def test_the_application_learns_that_the_client_has_left_afterwards(matcher):
    seen = []

    async def app(scope, receive, send):
        seen.extend([await receive(), await receive()])

    request(CheckUploads(app, matcher), [GOOD], form_headers())
    assert [one["type"] for one in seen] == ["http.request", "http.disconnect"]


def test_many_threads_may_read_a_spool(rng):
    content = rng.bytes(200_000)
    spool, wrong = Spool(1000), []
    for piece in chunks(content, 999):
        spool.append(piece)

    def look(seed):
        own = np.random.default_rng(seed)
        for at, length in own.integers(0, len(content), (300, 2)):
            if spool.read(int(at), int(length)) != content[at : at + length]:
                wrong.append((at, length))

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
