"""The lasting, editable truth of a bank: its tables, the rules of holds, the journal."""
