"""Tile stores, in memory and on disk; the one on disk survives a crash.

Read ``protocol`` first (what a store is), then ``disk`` (the OME-Zarr that grows), then ``journal`` (what may be
claimed). A store is given a ``spec`` and loads neither torch nor a network nor a source; ``unfinished`` reads back
what the spec said.
"""
