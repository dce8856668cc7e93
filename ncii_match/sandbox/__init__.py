"""Pictures from strangers, decoded in processes that can do nothing but decode."""

from typing import TYPE_CHECKING

from ncii_match.lazy_names import lazy_names

if TYPE_CHECKING:
    from ncii_match.sandbox.pool import Sandbox as Sandbox
    from ncii_match.sandbox.pool import SandboxStatus as SandboxStatus

HOMES = {
    "ncii_match.sandbox.pool": (
        "Sandbox",
        "SandboxStatus",
    ),
}
"""By module: the public names that it owns."""

__all__ = [
    "Sandbox",
    "SandboxStatus",
]

__getattr__, __dir__ = lazy_names(__name__, HOMES, __all__)
