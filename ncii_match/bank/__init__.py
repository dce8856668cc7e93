"""The bank: the lasting, editable truth (``store``), and numbered publications of it for readers (``snapshot``)."""
