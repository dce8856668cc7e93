"""The bank of hashes: ``bank.Bank`` is its one public class; four packages do the work.

``truth``
    The lasting, editable truth: tables, journal, the rules of holds.
``snapshots``
    Numbered publications of it: how they are made, found, checked and read; rekeying and restoring, too, which end in
    one.
``transfer``
    Files of hashes, read into a bank and written from it.
``crypto``
    Keys, ciphers, signatures.

``crypto`` imports none of the others, ``truth`` only ``crypto``; ``snapshots`` and ``transfer`` do not import each
other. ``publishing`` has the changes that end in a publication, ``contents`` what truth and snapshots both name.
"""
