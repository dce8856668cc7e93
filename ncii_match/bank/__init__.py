"""The bank: the lasting, editable truth (``store``), and the numbered publications of it that readers map
(``snapshot``)."""
