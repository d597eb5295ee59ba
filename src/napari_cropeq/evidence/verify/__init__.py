"""Comparison of tiles with the whole on the user's volume, for a model and for a zero-padded network.

Read ``verification`` first, then ``slices`` (a slice computed in tiles and at once).
"""
