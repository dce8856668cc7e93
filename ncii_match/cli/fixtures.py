"""Where the photographs and golden vectors are: inside an installed wheel, or beside the package in a checkout."""

from pathlib import Path

import ncii_match
from ncii_match.errors import InputError


def fixtures() -> Path:
    """The folder that holds ``photos`` and ``vectors``."""
    package = Path(ncii_match.__file__).parent
    for folder in (package / "fixtures", package.parent / "data" / "fixtures"):
        if (folder / "photos").is_dir():
            return folder
    raise InputError(f"the photographs are missing from this installation of {package}; install the package again")
