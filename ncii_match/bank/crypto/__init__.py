"""The key of a sealed bank, what is encrypted under it (hashes in the tables, files of snapshots), and signatures."""
