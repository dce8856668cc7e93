"""Pictures from strangers, decoded in processes that can do nothing but decode."""
