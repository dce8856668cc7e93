"""The command line: one file for each group of commands. It mirrors the library and holds no logic of its own."""
