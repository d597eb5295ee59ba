"""Tile stores, in memory and on disk; the one on disk survives a crash.

Read ``protocol`` first (what a store is), then ``disk`` (the OME-Zarr that grows), then ``journal`` (what may be
claimed). A store is given a ``spec`` and knows neither torch, nor a network, nor a source: it could serve another
project.
"""
