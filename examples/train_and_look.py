"""Train on a stack for two minutes, super-resolve it, and look at an axial view before and after."""

# %% A stack. This one is made up, so that the script runs as it is; `cq.open_image("stack.ome.tif")` opens yours.
from matplotlib import pyplot as plt

import napari_cropeq as cq
from napari_cropeq.formats.sample import light_sheet_sample

image, _ = light_sheet_sample()
print(image)  # two channels; the steps along z are 2.4 times larger than those along y and x

# %% How thick is a slice? Judge the number by its plot: the dots should follow the line.
fwhm = cq.estimate_fwhm(image)
print(fwhm)
figure, axes = plt.subplots()
fwhm.plot(axes)
figure.savefig("fwhm.png")

# %% Train on the stack itself. Without a `callback` a progress bar is shown.
model = cq.train(image, minutes=2)
model.save("model.safetensors")  # it also serves other stacks of the same kind: cq.Model.load("model.safetensors")
print(model)

# %% Super-resolve all of it, in memory.
sr = cq.super_resolve(image, model)  # (channels, z, y, x)
print(sr.shape)

# %% An axial view through the middle, first channel: as acquired, and super-resolved.
stack = image.volume(channel=0).compute()
row = stack.shape[1] // 2
figure, (before, after) = plt.subplots(2, 1, layout="constrained")
before.imshow(stack[:, row], aspect=model.acquisition.factor, cmap="gray")
before.set_title("as acquired")
after.imshow(sr[0, :, row], cmap="gray")
after.set_title("super-resolved")
figure.savefig("before_and_after.png", dpi=150)
# In napari: napari.imshow(sr, channel_axis=0, scale=model.acquisition.sr_voxel_size)
