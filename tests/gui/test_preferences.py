"""The plugin's page in napari's Preferences, and how its values are read."""

from __future__ import annotations

import os
from pathlib import Path

import napari.settings
import pytest
from npe2 import PluginManifest
from platformdirs import user_cache_path

import napari_cropeq
from napari_cropeq.errors import ArgumentError
from napari_cropeq.gui import preferences
from napari_cropeq.gui.preferences import Preferences, on_change
from napari_cropeq.gui.training_plan import checkpoint_path
from window import TIMEOUT, cells, dock, small

DEFAULT = Preferences("auto", 2_000_000_000, user_cache_path("napari-cropeq"))


@pytest.fixture
def page(viewer):
    """Return napari's Preferences dialog, and the fields of the plugin's page by name."""
    dialog = viewer.window._open_preferences_dialog()
    titles = [dialog._list.item(i).text() for i in range(dialog._list.count())]
    page = dialog._stack.widget(titles.index("cropeq super-resolution")).widget()
    (form,) = (page.layout().itemAt(i).widget() for i in range(page.layout().count()))
    return dialog, form.widget.widgets


def test_the_manifest_declares_the_preferences(preferences_file):
    manifest = PluginManifest.from_file(Path(napari_cropeq.__file__).with_name("napari.yaml"))
    (computing,) = manifest.contributions.configurations.values()
    assert {name: p.default for name, p in computing.properties.items()} == {
        "device": "auto",
        "cache_memory": 2.0,
        "cache_folder": "",
    }
    assert all(p.description for p in computing.properties.values())
    assert Preferences.read() == Preferences() == DEFAULT


def test_values_chosen_in_the_window_are_read_and_saved(page, preferences_file, tmp_path):
    dialog, fields = page
    fields["device"].setCurrentText("cpu")
    fields["cache_memory"].setValue(0.5)
    fields["cache_folder"].setText(str(tmp_path / "cache"))
    expected = Preferences("cpu", 500_000_000, tmp_path / "cache")
    assert Preferences.read() == expected
    dialog.accept()
    napari.settings._clear_plugin_settings_cache()  # as after a restart
    assert preferences_file.exists()
    assert Preferences.read() == expected


def test_changes_are_reported_until_disconnected(page):
    dialog, fields = page
    reported = []
    disconnect = on_change(reported.append)
    fields["cache_memory"].setValue(8)
    fields["device"].setCurrentText("cpu")
    assert [(p.device, p.cache_bytes) for p in reported] == [("auto", 8_000_000_000), ("cpu", 8_000_000_000)]
    dialog.reject()
    assert reported[-1] == Preferences.read() == Preferences(), "cancelled"
    reported.clear()
    disconnect()
    fields["cache_memory"].setValue(4)
    assert not reported


HOME = Path.home()
FILES = [
    pytest.param("", {}, id="empty"),
    pytest.param("computing:\n  device: cpu\n", {"device": "cpu"}, id="a-device"),
    pytest.param("computing:\n  device: tpu\n  cache_memory: 3\n", {"cache_bytes": 3 * 10**9}, id="unknown-device"),
    pytest.param("computing:\n  device: [cpu]\n", {}, id="a-list-of-devices"),
    pytest.param("computing:\n  cache_memory: 0.25\n", {"cache_bytes": 250_000_000}, id="least-memory"),
    pytest.param("computing:\n  cache_memory: 0\n", {}, id="no-memory"),
    pytest.param("computing:\n  cache_memory: -1\n  device: cpu\n", {"device": "cpu"}, id="negative-memory"),
    pytest.param("computing:\n  cache_memory: .inf\n", {}, id="endless-memory"),
    pytest.param("computing:\n  cache_memory: .nan\n", {}, id="nan-memory"),
    pytest.param("computing:\n  cache_memory: lots\n", {}, id="words-for-memory"),
    pytest.param("computing:\n  cache_memory: 1e400\n", {}, id="overflowing-memory"),
    pytest.param("computing:\n  cache_folder: /tmp/cropeq\n", {"cache_folder": Path("/tmp/cropeq")}, id="a-folder"),
    pytest.param("computing:\n  cache_folder: ~/tiles\n", {"cache_folder": HOME / "tiles"}, id="home-folder"),
    pytest.param("computing:\n  cache_folder: tiles\n", {"cache_folder": HOME / "tiles"}, id="relative-folder"),
    pytest.param("computing:\n  cache_folder: '  '\n", {}, id="blank-folder"),
    pytest.param("computing:\n  cache_folder: 7\n  device: cpu\n", {"device": "cpu"}, id="a-number-as-folder"),
    pytest.param("computing: 7\n", {}, id="no-group"),
    pytest.param("rubbish: true\n", {}, id="unknown-group"),
    pytest.param("- 1\n- 2\n", {}, id="a-list"),
    pytest.param("computing: {device: cpu\n", {}, id="broken-yaml"),
]


@pytest.mark.parametrize(("content", "expected"), FILES)
def test_a_file_edited_by_hand(preferences_file, content, expected):
    preferences_file.write_text(content)
    read = Preferences.read()
    assert {name: getattr(read, name) for name in Preferences.__slots__} == {
        name: expected.get(name, getattr(DEFAULT, name)) for name in Preferences.__slots__
    }


def test_a_file_that_is_not_text(preferences_file):
    preferences_file.write_bytes(bytes(range(256)))
    assert Preferences.read() == DEFAULT


def test_a_napari_without_such_settings(monkeypatch):
    monkeypatch.delattr(napari.settings, "get_plugin_settings")
    assert Preferences.read() == DEFAULT
    on_change(print)()


def mode(folder: Path) -> int:
    return folder.stat().st_mode & 0o777


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
def test_the_cache_folder_is_private(tmp_path, monkeypatch, umask):
    before = os.umask(umask)
    try:
        Preferences(cache_folder=tmp_path / "new" / "cache").make_cache_folder()
        (tmp_path / "default").mkdir(0o755)
        (tmp_path / "chosen").mkdir(0o755)
        monkeypatch.setattr(preferences, "user_cache_path", lambda _: tmp_path / "default")
        Preferences().make_cache_folder()
        Preferences(cache_folder=tmp_path / "chosen").make_cache_folder()
    finally:
        os.umask(before)
    assert mode(tmp_path / "new" / "cache") == 0o700
    assert mode(tmp_path / "default") == 0o700, "one that an earlier version has made"
    assert mode(tmp_path / "chosen") == 0o755 & ~umask, "the rights of a folder of the user are not changed"


@pytest.mark.parametrize("name", ["a file/cache", "null \0 byte"], ids=["a-file-in-the-way", "no-name-of-a-folder"])
def test_a_folder_that_cannot_be_created(tmp_path, name):
    (tmp_path / "a file").touch()
    with pytest.raises(ArgumentError, match=r"cannot be created .*\. Choose another one in File"):
        Preferences(cache_folder=tmp_path / name).make_cache_folder()


def test_training_uses_the_preferences(viewer, qtbot, preferences_file, tmp_path):
    preferences_file.write_text(f"computing:\n  device: cpu\n  cache_folder: {tmp_path / 'new' / 'cache'}\n")
    layer = viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    train = dock(viewer, "Train")
    assert train.device.value == "cpu"
    small(train, minutes=10)
    train.buttons["start"].native.click()
    qtbot.waitUntil(lambda: bool(train.curves.points), timeout=TIMEOUT)
    viewer.window.remove_dock_widget("all")
    assert list((tmp_path / "new" / "cache").iterdir()) == [checkpoint_path(layer)]


def test_a_preferred_device_that_does_not_exist_is_not_offered(viewer, preferences_file, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    preferences_file.write_text("computing:\n  device: cuda\n")
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    assert dock(viewer, "Train").device.value == "auto"


def test_training_reports_a_cache_folder_that_cannot_be_created(viewer, preferences_file, tmp_path):
    (tmp_path / "file").touch()
    preferences_file.write_text(f"computing:\n  cache_folder: {tmp_path / 'file' / 'cache'}\n")
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    train = dock(viewer, "Train")
    train.buttons["start"].native.click()
    assert "Choose another one in File > Preferences" in train.message.text()
    assert train._job is None
