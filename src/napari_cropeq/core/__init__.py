"""The method: geometry, interpolation, the network and its prediction, and training.

Read ``geometry`` first (which grid a voxel lies on), then ``predict`` (any box of the SR grid), then
``training/training``. Runs with numpy, scipy, torch and safetensors alone. Files, Dask, stores and Qt do not belong
here.
"""
