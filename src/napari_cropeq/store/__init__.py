"""Stores for tiles (blocks of voxels), in memory and on disk; the store on disk survives a crash.

Read ``protocol`` first (the interface of a store), then ``disk`` (an OME-Zarr that is filled tile by tile), then
``journal`` (which shards are finished). A ``spec`` describes a store, and ``unfinished`` reads it back from the disk.
Torch, networks and sources do not belong here.
"""
