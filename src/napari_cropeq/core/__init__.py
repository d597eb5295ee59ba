"""The method: geometry, interpolation, the network and its prediction, and training.

Read ``geometry`` first (which grid a voxel lies on), then ``predict`` (any box of the SR grid), then
``training/training``. This package needs only numpy, scipy, torch and safetensors. Files, Dask, stores and Qt do not
belong here.
"""
