"""Public names of a package that are loaded on first use (PEP 562), so that importing the package costs nothing."""

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package.

    Parameters
    ----------
    package : str
        Name of the package.
    homes : mapping
        By module: the names that it owns.

    Returns
    -------
    tuple
        A function that finds a name, a function that lists all names, and the list.

    Examples
    --------
    >>> find_name, list_names, names = lazy_names("ncii_match", {"ncii_match.values": ["Hashes"]})
    >>> find_name("Hashes").__name__
    'Hashes'
    >>> list_names()
    ['Hashes']
    """
    home_of = {name: module for module, names in homes.items() for name in names}
    names = sorted(home_of)

    def find_name(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(home_of[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return find_name, lambda: names, names
