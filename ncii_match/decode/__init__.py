"""Bytes to pixels: what a picture is by its content, within limits, by one stated rule for each pixel mode."""
