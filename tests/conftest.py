"""Small volumes and networks that tests share."""

from __future__ import annotations

import functools
import gc
import signal
import threading
import time
from pathlib import Path

import dask.array as da
import napari.settings
import numpy as np
import pytest
import torch
from npe2 import PluginManifest
from scipy import ndimage

from napari_cropeq.compute.fill import TileFiller
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import FWHM_PER_SIGMA, Acquisition
from napari_cropeq.core.model import Model
from napari_cropeq.core.network import Network, build_network, subpositions_for
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.predict import Predictor
from napari_cropeq.formats.image import Image, acquisition_of

TESTS = Path(__file__).parent
DATA = TESTS.parents[1] / "shared" / "data"
"""Real volumes, if there are any beside the checkout."""

# A shell makes background jobs and their children ignore Ctrl-C, but tests send it to processes that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def random_network(kind: str = "valid", filters: int = 8, blocks: int | None = None, factor: float = 2.5) -> Network:
    """Return a network with random weights everywhere, including the tail, which is 0 in an untrained network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(filters)
        depth = blocks or (4 if kind == "padded" else 7)
        net = build_network(kind, filters, depth, 3, subpositions_for(kind, factor))
        torch.nn.init.normal_(net.tail.weight, std=0.1)
    return net


def textured_volume(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Return uint16 noise (z, y, x) over a gradient: every voxel differs from its neighbours."""
    rng = np.random.default_rng(seed)
    ramp = sum(np.meshgrid(*[np.linspace(0, 900, n) for n in shape], indexing="ij"))
    return (ramp + rng.integers(0, 3000, shape)).astype(np.uint16)


def blobs(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Return isotropic float32 spots (z, y, x) from 0 to 1 on a dark background, for training."""
    rng = np.random.default_rng(seed)
    volume = np.zeros(shape)
    places = (rng.uniform(0, 1, (volume.size // 900, 3)) * shape).astype(int)
    volume[tuple(places.T)] = rng.uniform(0.3, 1, len(places))
    volume = ndimage.gaussian_filter(volume, 1.0)
    return (volume / volume.max()).astype(np.float32)


def acquired(truth: np.ndarray, factor: int) -> np.ndarray:
    """Return ``truth`` (z, y, x) as a microscope with thick slices sees it: FWHM and step of ``factor`` voxels."""
    blurred = ndimage.gaussian_filter1d(truth.astype(np.float64), factor / FWHM_PER_SIGMA, axis=0, mode="mirror")
    positions = (np.arange(len(truth) // factor) + 0.5) * factor - 0.5
    places = np.meshgrid(positions, *map(np.arange, truth.shape[1:]), indexing="ij")
    return ndimage.map_coordinates(blurred, places, order=5, mode="mirror").astype(np.float32)


def make_predictor(
    source: np.ndarray,
    factor: float,
    axial: int = 0,
    planes: str | None = None,
    filters: int = 8,
    kind: str = "valid",
    dtype: torch.dtype = torch.float32,
) -> Predictor:
    """Return a predictor with random weights over ``source``."""
    voxel_size = [1.0, 1.0, 1.0]
    voxel_size[axial] = factor
    return Predictor(
        random_network(kind, filters, factor=factor),
        Acquisition((voxel_size[0], voxel_size[1], voxel_size[2]), axial),
        source,
        Normalisation.measure(source),
        planes,
        device="cpu",
        dtype=dtype,
    )


class Recorded:
    """An array (z, y, x) that records which boxes are read."""

    def __init__(self, voxels: np.ndarray) -> None:
        self._voxels = voxels
        self.shape, self.dtype, self.ndim = voxels.shape, voxels.dtype, voxels.ndim
        self.keys: list[tuple] = []
        self.sizes: list[int] = []

    def __getitem__(self, key):
        self.keys.append(key)
        box = self._voxels[key]
        self.sizes.append(box.size)
        return box


def a_source(data, axes: str = "zyx", voxel_size=(2.5, 1.0, 1.0), **options) -> Image:
    """Return a lazy source of ``data``, in chunks that match no tile."""
    if not isinstance(data, da.Array):
        data = da.from_array(data, chunks=(*(1,) * (data.ndim - 3), 4, 23, 31), name=False, asarray=True, fancy=False)
    named = {"unit": "micrometer", "translate": (0.0, 0.0, 0.0), "name": "stack"} | options
    return Image(data=data, axes=axes, voxel_size=voxel_size, **named)


def a_result(
    data,
    axes: str = "zyx",
    voxel_size=(2.5, 1.0, 1.0),
    filters: int = 4,
    kind: str = "valid",
    blocks: int = 2,
    **options,
) -> SuperResolution:
    """Return the super-resolution of ``data`` by a network with random weights, from one plane if none is named.

    The network has 2 blocks, which compute faster than 7.
    """
    chosen = {key: options.pop(key) for key in ("planes", "dtype") if key in options}
    source = a_source(data, axes, voxel_size, **options)
    acquisition = acquisition_of(source)
    chosen.setdefault("planes", "y" if acquisition.axial == 2 else "x")
    network = random_network(kind, filters, blocks, acquisition.factor)
    model = Model(network, acquisition, [Normalisation(0.0, 4000.0)])
    return SuperResolution(source, model, device="cpu", **chosen)


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a seeded generator."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session", autouse=True)
def manifests_are_read_once():
    """Let napari discover plugins once: otherwise it reads all manifests for each window."""
    look = PluginManifest.discover
    discover = functools.cache(lambda paths=(): list(look(paths)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("npe2._plugin_manager.PluginManifest.discover", discover)
        yield


@pytest.fixture
def no_thread_is_left():
    """Check that every thread of the plugin has ended."""
    yield
    end = time.monotonic() + 5
    while work_threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert not work_threads()


def work_threads() -> list[threading.Thread]:
    """Return the threads that run a job of the plugin."""
    return [t for t in our_threads() if t.name == "cropeq"]


def pool_threads() -> list[threading.Thread]:
    """Return the threads of thread pools."""
    return [t for t in our_threads() if t.name.startswith("cropeq pool")]


def our_threads() -> list[threading.Thread]:
    """Return the threads of the plugin: libraries may start and end others at any time."""
    return [t for t in threading.enumerate() if t.name.startswith("cropeq")]


@pytest.fixture
def preferences_file(monkeypatch, tmp_path_factory):
    """Return the file of the plugin's preferences, in a folder of the test instead of the user's."""
    folder = tmp_path_factory.mktemp("preferences")
    monkeypatch.setattr(napari.settings, "_CFG_PATH", str(folder / "settings.yaml"))
    napari.settings._clear_plugin_settings_cache()
    yield folder / "napari-cropeq.yaml"
    napari.settings._clear_plugin_settings_cache()


class Gate(threading.Event):
    """Until it is set, runs over a volume wait at their second group of tiles, or after some more."""

    groups = 1  # that pass
    passed = 0

    def hold(self, filler: TileFiller) -> None:
        """Wait if the store has tiles already, and all groups that may pass have passed."""
        end = time.monotonic() + 60
        while next(iter(filler._store), None) is not None and self.passed >= self.groups and time.monotonic() < end:
            if self.wait(0.01):
                break
        self.passed += 1


@pytest.fixture
def gate(monkeypatch):
    """Return a gate at which runs over a volume wait."""
    gate, put = Gate(), TileFiller._put

    def held(self, *group) -> None:
        gate.hold(self)
        put(self, *group)

    monkeypatch.setattr(TileFiller, "_put", held)
    yield gate
    gate.set()  # no thread waits after a failure


@pytest.fixture(scope="module")
def shared_window(qapp):
    """Return the window of a module's tests; objects of earlier modules are frozen, so that each gc is fast."""
    from shared_window import SharedWindow, viewers_left  # Qt and all of napari: not for tests without a window

    gc.collect()
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        window = SharedWindow(patch)
        yield window
        window.close()
        del window
    assert viewers_left() == 0


@pytest.fixture
def viewer(request, no_thread_is_left, shared_window, qtbot, preferences_file, monkeypatch, tmp_path_factory):
    """Return napari in a real window, with its own preferences and cache; cleared before threads are counted."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    # With idle priority, work would hardly proceed beside other tests.
    monkeypatch.setattr("napari_cropeq.gui.jobs.lower_priority", lambda: None)
    yield shared_window.viewer(qtbot)
    shared_window.clean(request.node.rep_call.failed)


@pytest.fixture(scope="module")
def looked_up():
    """Let nothing look up the links of a published model: tests need no connection. Return what was asked for."""
    httpx = pytest.importorskip("httpx")
    asked = []

    def unreachable(method: str, url: str, **_) -> None:
        asked.append(url)
        raise httpx.ConnectError("no connection", request=httpx.Request(method, url))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx, "request", unreachable)
        yield asked
