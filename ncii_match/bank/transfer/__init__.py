"""Files of hashes, read into a bank and written from it."""
