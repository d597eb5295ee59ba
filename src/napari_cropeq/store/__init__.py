"""Tile stores, in memory and on disk; the store on disk survives a crash.

Read ``protocol`` first (the interface of a store), then ``disk`` (the growing OME-Zarr), then ``journal`` (which shards
are finished). A store takes a ``spec`` and loads neither torch nor a network nor a source; ``unfinished`` reads the
spec back.
"""
