"""Self-supervised axial super-resolution for napari whose preview is the export, bit for bit.

The package root imports nothing: napari reads the manifest of every installed plugin at start-up, and
must not wait for torch or Qt because this one is installed.
"""

__version__ = "0.1.0"
