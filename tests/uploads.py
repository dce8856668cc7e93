"""Requests to ASGI applications without a server, forms, and a matcher that only remembers what it was asked."""

import asyncio
import json

from ncii_match.decisions import Decision
from ncii_match.outcomes import Action, Outcome, Status

BOUNDARY = "----boundary4711"


def part(content, name="picture", filename=None, content_type=None, more=()):
    """One part of a form: headers and content."""
    says = f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    lines = [says, *([f"Content-Type: {content_type}"] if content_type else []), *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def form(*parts, boundary=BOUNDARY, end=b"\r\n"):
    """A multipart body."""
    mark = b"--" + boundary.encode()
    return b"".join(mark + b"\r\n" + one + b"\r\n" for one in parts) + mark + b"--" + end


def form_headers(boundary=BOUNDARY):
    return [("content-type", f"multipart/form-data; boundary={boundary}")]


class Answer:
    """What a client sees."""

    def __init__(self, messages):
        starts = [one for one in messages if one["type"] == "http.response.start"]
        self.started = bool(starts)
        self.status = starts[0]["status"] if starts else None
        self.headers = {name.decode(): value.decode() for name, value in starts[0]["headers"]} if starts else {}
        self.body = b"".join(one.get("body", b"") for one in messages if one["type"] == "http.response.body")

    @property
    def code(self):
        return json.loads(self.body)["code"] if self.body else None


class Application:
    """Reads the whole body, remembers it and its scope, and says yes."""

    def __init__(self):
        self.calls, self.bodies, self.scopes = 0, [], []

    async def __call__(self, scope, receive, send):
        self.calls += 1
        body, more = b"", True
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            body, more = body + message["body"], message["more_body"]
        self.bodies.append(body)
        self.scopes.append(scope)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    @property
    def upload(self):
        return self.scopes[-1]["ncii_match"]


def chunks(body, size):
    return [body[at : at + size] for at in range(0, len(body), size)] or [b""]


def request(app, pieces, headers=(), *, leaves=False, **scope):
    """Send one request, a message for each piece; ``leaves``: the client goes before the end."""
    messages = [{"type": "http.request", "body": one, "more_body": True} for one in pieces]
    if not leaves:
        messages[-1]["more_body"] = False
    messages.append({"type": "http.disconnect"})
    sent = []

    async def receive():
        return messages.pop(0) if len(messages) > 1 else messages[0]

    async def send(message):
        sent.append(message)

    about = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        **scope,
    }
    asyncio.run(app(about, receive, send))
    return Answer(sent)


class RecordingMatcher:
    """Gives every picture the same decision, and keeps their bytes."""

    def __init__(self, decision: Decision):
        self.decision, self.seen = decision, []

    async def acheck(self, image):
        self.seen.append(image.read())
        return self.decision


def decision(outcome, action, status=Status.OK):
    """A decision that nobody made."""
    entries = (1,) if outcome is Outcome.MATCH else ()
    return Decision(outcome, action, status, None, entries, (), None, None)


NO_MATCH = decision(Outcome.NO_MATCH, Action.ALLOW)
