"""Compute one volume with several processes or machines, by dask.distributed.

Read ``run`` first (tiles as tasks), then ``worker`` (what a task does), then ``client`` (where workers come from).
dask.distributed is imported only when a job needs it.
"""
