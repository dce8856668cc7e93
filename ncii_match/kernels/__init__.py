"""The arithmetic: plain arrays in, plain arrays out, compiled by Numba. Knows numpy and numba, and no meaning."""
