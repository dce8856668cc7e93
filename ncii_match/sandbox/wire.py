"""What is said between the host, the fork server and its workers: fixed-size messages and the bytes of a picture.

Nothing that comes from a worker is unpickled, evaluated or trusted to state its own length.
"""

import json
import socket
from dataclasses import asdict, dataclass
from struct import Struct

from ncii_match.decode.image import JpegRoute
from ncii_match.decode.limits import DecodeLimits

COMMAND = Struct("<cI")
"""Host to fork server: what to do, and the worker's number. ``FORK`` carries the worker's end of a socket pair, and the
descriptor of its ``Region`` where it has one."""

FORK, KILL, END, SLOW = b"F", b"K", b"E", b"S"
"""``KILL`` ends a worker. ``END`` ends it and answers with ``ENDED``. ``SLOW`` lowers its priority for good."""

ENDED = Struct("<Ii")
"""Fork server to host: the worker's number, and its exit code, or minus the signal that ended it."""

STARTED, FAILED = b"R", b"E"
"""Fork server to host, once: it is warm, or the reason (the text up to the end of the stream) why it is not."""

READY = Struct("<4sB3x")
"""Worker to host, once, before it has seen a picture: ``READY_MARK`` and the number of its level of confinement."""

READY_MARK = b"NMRD"

REQUEST = Struct("<IIQ")
"""Host to worker: number of the request, the scaled side (0: every pixel), bytes of the picture; these follow.

No bytes: the picture of the request before, once more."""

BEGUN = b"B"
"""Worker to host: the whole picture is here. A worker that ends before has not died of the picture."""

REPLY = Struct("<IBBBBIIII")
"""Worker to host: number of the request, ``Status``, channels (1 stands for [h, w]), scale, where the samples are,
height and width of the picture as stored, rows and columns of the samples. All 0 after a status other than OK."""

FOLLOWING, SHARED = 0, 1
"""Where samples are: behind the reply, or in the worker's ``Region``, from its first byte on."""

CHANNELS, SCALES = (1, 3, 4), (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Orders:
    """All that a fork server is told. Sent as JSON on its command line, so it holds nothing secret.

    control : number of the descriptor of its end of the control socket.
    path : ``sys.path`` of the host.
    limits, jpeg : as for ``read_picture``.
    memory : bytes for one picture.
    cpu : seconds of processor time in a worker's life.
    region : bytes of memory that each worker shares with the host, for its pixels; 0: none.
    seccomp : whether workers install the filter of system calls where the kernel has one.
    task : ``module:function`` that decodes.
    """

    control: int
    path: tuple[str, ...]
    limits: DecodeLimits
    jpeg: JpegRoute
    memory: int
    cpu: int
    region: int
    seccomp: bool
    task: str

    def to_json(self) -> str:
        """One line of text."""
        limits = {**asdict(self.limits), "formats": sorted(self.limits.formats)}
        names = ("control", "path", "jpeg", "memory", "cpu", "region", "seccomp", "task")
        return json.dumps({**{name: getattr(self, name) for name in names}, "limits": limits})

    @classmethod
    def from_json(cls, text: str) -> "Orders":
        """The inverse of ``to_json``."""
        fields = json.loads(text)
        limits = {**fields.pop("limits")}
        limits["formats"] = frozenset(limits["formats"])
        return cls(path=tuple(fields.pop("path")), limits=DecodeLimits(**limits), **fields)


def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly ``size`` bytes, or fewer where the stream ends before. Raises MemoryError before anything was read."""
    data = connection.recv(size, socket.MSG_WAITALL)  # allocates once, so that a large picture is not copied again
    while 0 < len(data) < size:
        chunk = connection.recv(size - len(data), socket.MSG_WAITALL)
        if not chunk:
            break
        data += chunk
    return data
