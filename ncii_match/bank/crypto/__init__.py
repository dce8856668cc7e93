"""The key of a sealed bank, and what stands under it: hashes in the tables, files of snapshots."""
