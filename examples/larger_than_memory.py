"""Super-resolve a volume that does not fit into memory: lazily on a Dask cluster, or straight into a file.

The cluster needs ``pip install "napari-cropeq[cluster]"``.
"""

# %% A volume on disk. This one is made up, so that the script runs as it is; a path of your own does as well.
import dask.array as da
import zarr
from dask.distributed import Client, LocalCluster

import napari_cropeq as cq
from napari_cropeq.formats.sample import light_sheet_sample

image, _ = light_sheet_sample()
da.to_zarr(image.volume(channel=0), "volume.zarr")
volume = zarr.open_array("volume.zarr", mode="r")
steps = image.voxel_size  # along z, y, x, in µm: a plain Zarr array does not say

# %% Training reads planes of the volume, not all of it. A checkpoint lets the script be killed and run again.
model = cq.train(volume, steps, minutes=2, checkpoint="model.checkpoint.safetensors")
print(model)

# %% A lazy array: nothing is computed until a part of it is asked for, and then no more than that part.
lazy = cq.super_resolve_lazy(volume, model, steps)
print(lazy)
print("one plane:", lazy[20].compute().shape)

# %% It goes on like any Dask array, here as projections computed by a cluster. Threads of this process are enough to
# try it; for processes and other machines give `Client` their address: they need the same files and packages.
with LocalCluster(n_workers=2, processes=False, dashboard_address=None) as cluster, Client(cluster):
    projection = lazy.max(axis=0).compute()
print("projection:", projection.shape)

# %% Or into an OME-Zarr with its pyramid. A run that was stopped or killed continues with existing="resume".
path = cq.export(volume, model, "volume_SR.ome.zarr", steps, existing="resume")
print(cq.open_image(path))
