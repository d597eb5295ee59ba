"""The window: the only code that knows napari and Qt."""
