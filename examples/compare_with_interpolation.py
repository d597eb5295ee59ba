"""Compare a super-resolved stack with cubic interpolation, where the truth is known."""

# %% A made-up light-sheet stack, and the isotropic volume without noise that it was made from.
import numpy as np
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import napari_cropeq as cq
from napari_cropeq.formats.sample import light_sheet_sample

image, truth = light_sheet_sample()
stack, wanted = image.volume(channel=0).compute(), truth.volume(channel=0).compute()
print(image)

# %% Train on the stack alone; the truth is only for the scores. Slices are 2.2 µm thick, wider than their step of 1 µm.
model = cq.train(image, fwhm=2.2, minutes=2)
sr = cq.super_resolve(stack, model, image.voxel_size, dtype="float32")

# %% Cubic interpolation at the same places: both grids cover the same extent, so the first voxels are not aligned.
factor = model.acquisition.factor
along_z = (np.arange(len(sr)) + 0.5) / factor - 0.5
grid = np.meshgrid(along_z, *map(np.arange, stack.shape[1:]), indexing="ij")
cubic = ndimage.map_coordinates(stack.astype(np.float32), grid, order=3, mode="mirror")

# %% The higher, the better.
span = float(np.ptp(wanted))
for name, volume in {"cubic interpolation": cubic, "super-resolved": sr}.items():
    psnr = peak_signal_noise_ratio(wanted, volume, data_range=span)
    ssim = structural_similarity(wanted, volume, data_range=span)
    print(f"{name:20} PSNR {psnr:.2f} dB, SSIM {ssim:.4f}")
