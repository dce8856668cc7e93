"""Everything already stored against a bank: rows in, rows out; jobs that survive whatever ends them."""
