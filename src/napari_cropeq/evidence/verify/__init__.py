"""Tiles against the whole, on the user's own volume, beside a zero-padded network.

Read ``verification`` first, then ``slices`` (a slice computed in tiles and at once).
"""
