"""Public names of a package that are loaded on first use (PEP 562), so that importing the package costs nothing."""

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, Iterable[str]], listed: list[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make ``__getattr__`` and ``__dir__`` of a package.

    Parameters
    ----------
    package : str
        Name of the package.
    homes : mapping
        By module: the public names that it owns.
    listed : list of str
        What ``dir`` of the package gives.

    Returns
    -------
    tuple
        A function that loads a name, and one that lists the names.

    Examples
    --------
    >>> load_name, list_names = lazy_names("ncii_match", {"ncii_match.values": ["Hashes"]}, ["Hashes"])
    >>> load_name("Hashes").__name__
    'Hashes'
    >>> list_names()
    ['Hashes']
    """
    home_of = {name: module for module, names in homes.items() for name in names}

    def load_name(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(home_of[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return load_name, lambda: listed
