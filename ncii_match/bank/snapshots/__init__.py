"""Numbered, unchanging publications of a bank: how they are made, found, checked and read."""
