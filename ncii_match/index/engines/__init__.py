"""Search engines, one file each. ``index.engine`` says what an engine is; all of them are exact."""
