"""The method: numpy, scipy, torch and safetensors only. Knows neither napari, Qt, dask nor zarr."""
