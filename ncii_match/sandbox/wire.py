"""What is said between the host, the fork server and its workers: fixed-size messages and the bytes of a picture.

Nothing that comes from a worker is unpickled, evaluated or trusted to state its own length.
"""

import json
import socket
from dataclasses import asdict, dataclass
from struct import Struct

from ncii_match.decode.image import JpegRoute
from ncii_match.decode.limits import DecodeLimits
from ncii_match.values import Algorithm, View

COMMAND = Struct("<cI")
"""Host to fork server: what to do, and the worker's number. ``FORK`` carries the worker's end of a socket pair."""

FORK, KILL = b"F", b"K"

STARTED, FAILED = b"R", b"E"
"""Fork server to host, once: it is warm, or the reason (the text up to the end of the stream) why it is not."""

READY = Struct("<4sB3x")
"""Worker to host, once, before it has seen a picture: ``READY_MARK`` and the number of its level of confinement."""

READY_MARK = b"NMRD"

REQUEST = Struct("<IQ")
"""Host to worker: number of the request, bytes of the picture; these follow."""

BEGUN = b"B"
"""Worker to host: the whole picture is here. A worker that ends before has not died of the picture."""

REPLY = Struct("<IB3x")
"""Worker to host: number of the request, ``Status``; then for each view the bits, then for each view the quality."""

NO_HASH = 128
"""Instead of a row's quality, with its ``Status`` added: this view has no hash, though others have."""


@dataclass(frozen=True, slots=True)
class Orders:
    """All that a fork server is told. Sent as JSON on its command line, so it holds nothing secret.

    control : number of the descriptor of its end of the control socket. path : ``sys.path`` of the host.
    memory : bytes. cpu : seconds of processor time in a worker's life. task : ``module:function`` that hashes.
    """

    control: int
    path: list[str]
    algorithm: Algorithm
    views: tuple[View, ...]
    limits: DecodeLimits
    jpeg: JpegRoute
    memory: int
    cpu: int
    task: str

    def to_json(self) -> str:
        """One line of text."""
        limits = {**asdict(self.limits), "formats": sorted(self.limits.formats)}
        return json.dumps(
            {
                **{name: getattr(self, name) for name in ("control", "path", "jpeg", "memory", "cpu", "task")},
                "algorithm": str(self.algorithm),
                "views": [int(view) for view in self.views],
                "limits": limits,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "Orders":
        """The inverse of ``to_json``."""
        found = json.loads(text)
        limits = {**found.pop("limits")}
        limits["formats"] = frozenset(limits["formats"])
        return cls(
            algorithm=Algorithm.parse(found.pop("algorithm")),
            views=tuple(View(view) for view in found.pop("views")),
            limits=DecodeLimits(**limits),
            **found,
        )


def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly ``size`` bytes, or fewer where the stream ends before. Raises MemoryError before anything was read."""
    data = connection.recv(size, socket.MSG_WAITALL)  # allocates once, so that a large picture is not copied again
    while 0 < len(data) < size:
        more = connection.recv(size - len(data), socket.MSG_WAITALL)
        if not more:
            break
        data += more
    return data
