"""One volume by several processes or machines, with dask.distributed.

Read ``run`` first (tiles as tasks), then ``worker`` (what a task does), then ``client`` (where workers come from).
The library is imported only when a job asks for it.
"""
