"""The model file: what it contains, and files that are damaged or not models."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import save_file

from conftest import random_network, textured_volume
from napari_cropeq.core.geometry import Acquisition, Box
from napari_cropeq.core.model import FORMAT, STATE_GROUPS, Model, State, check_model_path, provenance
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.predict import Predictor
from napari_cropeq.errors import AccessError, ArgumentError, MismatchError, MissingFileError, ModelFileError

ACQUISITION = Acquisition((1.0, 0.411, 0.41), 0, 2.2)


def a_model(kind: str = "valid", filters: int = 4, state: State | None = None) -> Model:
    return Model(
        random_network(kind, filters, factor=ACQUISITION.factor),
        ACQUISITION,
        [Normalisation(100.25, 4000.5), Normalisation(0.0, 2.0)],
        {"recipe": {"seed": 3}, "losses": [[8, 1.0, 0.5, 0.25]]},
        provenance({"name": "µ-brain", "shape": [4, 5, 6]}),
        state,
    )


def a_state(groups=STATE_GROUPS, **numbers) -> State:
    weights = a_model().network.state_dict()
    tensors = {f"{group}/{k}": torch.full_like(v, n) for n, group in enumerate(groups) for k, v in weights.items()}
    return State(tensors, **({"steps": 12, "patches": 96, "seconds": 3.5} | numbers))


def test_a_model_does_not_change_with_its_file(tmp_path):
    """safetensors maps the file, which another program may write in place."""
    path = tmp_path / "m.safetensors"
    a_model(state=a_state()).save(path)
    model = Model.load(path)
    path.write_bytes(bytes(path.stat().st_size))
    assert model.fingerprint == a_model().fingerprint
    assert all(torch.equal(value, model.state.tensors[name]) for name, value in a_state().tensors.items())


@pytest.mark.parametrize("groups", [STATE_GROUPS, ("last",), ("last", "exp_avg", "exp_avg_sq")], ids="-".join)
def test_the_state_of_the_training_is_saved(tmp_path, groups):
    model = a_model(state=a_state(groups))
    model.save(tmp_path / "m.safetensors")
    state = Model.load(tmp_path / "m.safetensors").state
    assert (state.steps, state.patches, state.seconds) == (12, 96, 3.5)
    assert set(state.tensors) == set(model.state.tensors)
    assert all(torch.equal(v, model.state.tensors[k]) for k, v in state.tensors.items())
    assert set(state.group("last")) == set(model.network.state_dict())
    assert state.group("nothing") == {}


@pytest.mark.parametrize("kind", ["valid", "padded", "subpixel"])
def test_saved_and_loaded(tmp_path, kind):
    model = a_model(kind)
    path = tmp_path / "a model.safetensors"
    model.save(path)
    loaded = Model.load(path)
    assert loaded.acquisition == model.acquisition
    assert loaded.normalisations == model.normalisations and loaded.state is None
    assert loaded.training == model.training
    assert loaded.provenance == json.loads(json.dumps(model.provenance))
    assert loaded.fingerprint == model.fingerprint
    assert not loaded.network.training
    source = textured_volume((8, 30, 40))
    box = Box.whole(ACQUISITION.sr_shape(source.shape))
    one, other = (
        Predictor(m.network, m.acquisition, source, m.normalisations[0], device="cpu")(box) for m in (model, loaded)
    )
    assert np.array_equal(one, other)


def test_different_models_have_different_fingerprints():
    model = a_model()
    same, other = a_model(), a_model()
    other.network.tail.bias.data += 1e-6
    assert model.fingerprint == same.fingerprint
    assert len({m.fingerprint for m in (model, other, a_model(filters=5), a_model("padded"))}) == 4


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_the_file_mode_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        a_model().save(tmp_path / "m.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "m.safetensors").stat().st_mode & 0o777 == 0o640


def test_a_model_is_replaced_only_by_a_complete_one(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    a_model().save(path)
    before = path.read_bytes()

    def full(_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "fsync", full)
        a_model("padded").save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.safetensors"]
    a_model("padded").save(path)
    assert Model.load(path).network.kind == "padded"
    assert os.listdir(tmp_path) == ["m.safetensors"]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        pytest.param("model.pt", ArgumentError, "The model name 'model.pt' does not end in .safetensors", id="pt"),
        pytest.param("model", ArgumentError, "The model name 'model' does not end", id="no-suffix"),
        pytest.param("nowhere/m.safetensors", AccessError, "does not exist or is not writable", id="missing-folder"),
        pytest.param("file/m.safetensors", AccessError, "does not exist or is not writable", id="file-as-folder"),
        pytest.param("taken.safetensors", AccessError, "is a folder, not a file", id="folder-of-that-name"),
    ],
)
def test_names_under_which_a_model_cannot_be_saved(tmp_path, name, error, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "taken.safetensors").mkdir()
    with pytest.raises(error, match=message):
        check_model_path(tmp_path / name)
    with pytest.raises(error, match=message):
        a_model().save(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["file", "taken.safetensors"]


@pytest.mark.parametrize("factor", [2.433, 2.42, 2.45])
def test_a_model_fits_volumes_of_its_factor(factor):
    a_model().check_fits(Acquisition((factor, 1.0, 1.0)))


@pytest.mark.parametrize("factor", [2.0, 2.39, 2.5, 5.0])
def test_a_model_for_another_factor_is_refused(factor):
    message = f"The model was trained for factor 2.436, but the volume has factor {factor:.4g}"
    with pytest.raises(MismatchError, match=message):
        a_model().check_fits(Acquisition((factor, 1.0, 1.0)))


def header(**changes) -> dict:
    """Return the header of a good model, with entries replaced; None removes one."""
    model = a_model()
    good = {
        "format": FORMAT,
        "fingerprint": model.fingerprint,
        "network": {"kind": "valid", "filters": 4, "blocks": 7, "kernel": 3, "subpositions": 1},
        "acquisition": asdict(model.acquisition),
        "normalisations": [asdict(n) for n in model.normalisations],
        "training": {},
        "provenance": {},
    }
    for key, value in changes.items():
        outer, _, inner = key.partition("__")
        entry, name = (good[outer], inner) if inner else (good, outer)
        if value is None:
            del entry[name]
        else:
            entry[name] = value
    return good


def write(path: Path, text: str | None, weights: dict | None = None) -> None:
    weights = a_model().network.state_dict() if weights is None else weights
    metadata = None if text is None else {"cropeq": text}
    save_file({k: v.contiguous() for k, v in weights.items()}, path, metadata)


def changed(name: str, value) -> dict:
    return dict(a_model().network.state_dict()) | {name: value}


def poisoned() -> torch.Tensor:
    bias = torch.zeros(4)
    bias[2] = torch.nan
    return bias


class Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def raw_safetensors(path: Path, head: bytes, body: bytes = b"") -> None:
    path.write_bytes(struct.pack("<Q", len(head)) + head + body)


DEEP = "[" * 100_000 + "]" * 100_000
NETWORK = {"kind": "valid", "filters": 4, "blocks": 7, "kernel": 3, "subpositions": 1}
NUMBERS = {"steps": 1, "patches": 8, "seconds": 1.0}
SIZES = [[4, 1], "4 1 1", [4, 1, None], 4]
RECORDS = {
    "training": {
        "patches": [-1, 1.5, "8", True, [8]],
        "seconds": [-1, "8", [8], float("nan"), 10**400],
        "losses": [7, "abc", [7], [[1, 2, 3]], [[8, 1.0, 0.5, "0.25"]], {"8": 0.5}],
        "recipe": [7, "fast", [1]],
        "noise": [7, {"slope": 1.0, "offset": 0.0}, [[1.0, 0.0]], [{"slope": 1.0}], [{"slope": "1", "offset": 0.0}]],
        "photon_transfer": [
            7,
            [7],
            {"intensity": [0.5], "variance": [0.1], "correlation": 0.0},
            [{"intensity": [0.5], "variance": [0.1]}],
            [{"intensity": [0.5], "variance": [0.1, 0.2], "correlation": 0.0}],
            [{"intensity": 0.5, "variance": 0.1, "correlation": 0.0}],
            [{"intensity": ["0.5"], "variance": [0.1], "correlation": 0.0}],
            [{"intensity": [0.5], "variance": [float("nan")], "correlation": 0.0}],
            [{"intensity": [0.5], "variance": [0.1], "correlation": "0"}],
        ],
    },
    "provenance": {
        "source": [
            7,
            "stack",
            ["stack"],
            *({"shape": shape} for shape in (7, "4", [4.5], [None])),
            *({"voxel_size": size} for size in SIZES),
            {"name": ["stack"]},
            {"path": 7},
            {"dtype": {}},
            {"unit": 3},
            {"layers": 7},
            {"layers": [7]},
        ],
        "source_checksum": [7, ["a"]],
        "versions": [7, "0.1.0", [1], {"napari-cropeq": 7}],
    },
}
"""Values of the wrong type or range, by the entry of a header."""

HEADERS = [
    pytest.param("not json", "is not a readable napari-cropeq model", id="no-json"),
    pytest.param("[]", "its format is not", id="list"),
    pytest.param(DEEP, "is not a readable", id="deeply-nested"),
    pytest.param(f'{{"format": "{FORMAT}", "network": {DEEP}}}', "is not a readable", id="deeply-nested-inside"),
    pytest.param(header(format="other"), "its format is not", id="format"),
    *(
        pytest.param(header(**{key: None}), f"its header has no {key}", id=f"no-{key}")
        for key in ("network", "acquisition", "normalisations", "training", "provenance")
    ),
    pytest.param(header(network=[1]), "its header has no network", id="network-list"),
    pytest.param(header(network__filters=None), "is not a readable", id="no-filters"),
    pytest.param(header(network__filters="4"), "the wrong type", id="filters-text"),
    pytest.param(header(network__filters=True), "the wrong type", id="filters-bool"),
    pytest.param(header(network__filters=4.0), "the wrong type", id="filters-float"),
    pytest.param(header(network__filters=5), "its weights do not fit", id="filters-other"),
    pytest.param(
        header(network__filters=10**12), "A network has 1 to 1024 filters, not 1000000000000", id="filters-huge"
    ),
    pytest.param(header(network__filters=10**5000), "is not a readable", id="filters-5000-digits"),
    pytest.param(header(network__filters=-4), "1 to 1024 filters, not -4", id="filters-negative"),
    pytest.param(header(network__filters=1024, network__blocks=64), "its weights do not fit", id="filters-1024"),
    pytest.param(header(network__blocks=10**9), "1 to 64 blocks", id="blocks-huge"),
    pytest.param(header(network__blocks=8), "its weights do not fit", id="blocks-other"),
    pytest.param(header(network__kernel=4), "A kernel has 3, 5 or 7 px, not 4", id="kernel-even"),
    pytest.param(header(network__kind="u-net"), "There is no network 'u-net'", id="kind"),
    pytest.param(header(network__kind={}), "the wrong type", id="kind-mapping"),
    pytest.param(header(acquisition__voxel_size="4 1 1"), "the wrong type", id="voxel-size-text"),
    pytest.param(header(acquisition__voxel_size=[4, 1]), "is not a readable", id="voxel-size-of-two"),
    pytest.param(header(acquisition__voxel_size=[1, 1, 1]), "isotropic", id="isotropic"),
    pytest.param(header(acquisition__voxel_size=[0, 1, 1]), "is not three positive numbers", id="voxel-size-zero"),
    pytest.param(header(acquisition__voxel_size=[float("nan"), 1, 1]), "is not three positive", id="voxel-size-nan"),
    pytest.param(header(acquisition__voxel_size=[[4], 1, 1]), "is not a readable", id="voxel-size-nested"),
    pytest.param(header(acquisition__axial="z"), "the wrong type", id="axial-text"),
    pytest.param(header(acquisition__axial=7), "The axial axis cannot be 7", id="axial-7"),
    pytest.param(header(acquisition__fwhm=-1), r"slice profile \(-1 micrometer\) is not a positive", id="fwhm"),
    pytest.param(header(acquisition__fwhm={}), "is not a readable", id="fwhm-mapping"),
    pytest.param(header(network__subpositions=2), "Network 'valid' has 1 to 1 sub-positions, not 2", id="subpositions"),
    pytest.param(
        header(network__kind="subpixel", network__subpositions=10**9), "has 1 to 32 sub-pos", id="subpositions-huge"
    ),
    pytest.param(header(network__kind="subpixel", network__subpositions=3), "do not fit", id="subpositions-other"),
    pytest.param(header(acquisition__lateral_fwhm=9.0), "is not smaller than the FWHM", id="lateral-fwhm"),
    pytest.param(header(normalisations=[]), "its header has no normalisations", id="no-scale"),
    pytest.param(header(normalisations={"low": 0, "high": 1}), "no normalisations", id="scale-mapping"),
    pytest.param(header(normalisations=[7]), "is not a readable", id="scale-number"),
    pytest.param(header(state=NUMBERS), "its weights do not fit", id="state-without-tensors"),
    pytest.param(header(state=[1]), "is not a readable", id="state-list"),
    pytest.param(header(state=NUMBERS | {"steps": -1}), "has impossible numbers", id="state-negative"),
    pytest.param(header(state=NUMBERS | {"patches": 1.5}), "has impossible numbers", id="state-half"),
    pytest.param(header(state=NUMBERS | {"seconds": float("nan")}), "has impossible numbers", id="state-nan"),
    pytest.param(header(normalisations=[{"low": 5, "high": 5}]), "not a range of numbers", id="range-empty"),
    pytest.param(
        header(normalisations=[{"low": 0, "high": float("inf")}]), "not a range of numbers", id="range-endless"
    ),
    pytest.param(header(normalisations=[{"low": 0}]), "is not a readable", id="range-half"),
    pytest.param(header(normalisations=[{"low": "a", "high": 1}]), "is not a readable", id="range-text"),
    pytest.param(header(normalisations=[{"low": 10**400, "high": 1}]), "is not a readable", id="range-endless-integer"),
    *(
        pytest.param(header(**{f"{group}__{key}": value}), f"its {group} has an impossible {key}", id=f"{key}-{number}")
        for group, entries in RECORDS.items()
        for key, values in entries.items()
        for number, value in enumerate(values)
    ),
    pytest.param(header(checksum=7), "its header or training state differs", id="checksum-number"),
    pytest.param(header(checksum="0" * 16), "its header or training state differs", id="checksum-other"),
]
WEIGHTS = [
    pytest.param({}, "do not fit", id="none"),
    pytest.param(changed("state/last/head.bias", torch.zeros(4)), "is not a readable", id="state-without-numbers"),
    pytest.param(changed("more", torch.zeros(3)), "do not fit", id="one-more"),
    pytest.param(changed("head.bias", torch.zeros(5)), "do not fit", id="shape"),
    pytest.param(changed("head.bias", poisoned()), "not finite 32-bit numbers", id="nan"),
    pytest.param(changed("head.bias", torch.full((4,), torch.inf)), "not finite 32-bit numbers", id="inf"),
    pytest.param(changed("head.bias", torch.zeros(4, dtype=torch.float64)), "not finite 32-bit", id="float64"),
    pytest.param(changed("head.bias", torch.zeros(4, dtype=torch.int32)), "not finite 32-bit", id="int32"),
]


def refused(path: Path, message: str) -> None:
    with pytest.raises(ModelFileError, match=message) as caught:
        Model.load(path)
    error = caught.value
    assert error.problem.startswith(f"{path.name} is ") and error.remedy.startswith("Choose a model file")
    assert "\n" not in str(error) and len(str(error)) < 500


@pytest.mark.parametrize(("head", "message"), HEADERS)
def test_hostile_headers(tmp_path, head, message):
    sys.set_int_max_str_digits(0)  # to write a number that is too long to read
    try:
        text = head if isinstance(head, str) else json.dumps(head)
    finally:
        sys.set_int_max_str_digits(4300)
    path = tmp_path / "m.safetensors"
    write(path, text)
    refused(path, message)


@pytest.mark.parametrize(("weights", "message"), WEIGHTS)
def test_hostile_weights(tmp_path, weights, message):
    path = tmp_path / "m.safetensors"
    write(path, json.dumps(header()), weights)
    refused(path, message)


def test_the_unchanged_header_loads(tmp_path):
    """Each case above differs from this file in one value."""
    write(tmp_path / "m.safetensors", json.dumps(header()))
    assert Model.load(tmp_path / "m.safetensors").acquisition == ACQUISITION


def good_bytes(folder: Path) -> bytes:
    a_model().save(folder / "good.safetensors")
    return (folder / "good.safetensors").read_bytes()


FILES = [
    pytest.param(lambda path: path.write_bytes(b""), id="empty"),
    pytest.param(lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), id="random"),
    pytest.param(lambda path: path.write_bytes(b"\x00" * 5000), id="zeros"),
    pytest.param(lambda path: path.write_bytes(good_bytes(path.parent)[:-100]), id="cut-in-weights"),
    pytest.param(lambda path: path.write_bytes(good_bytes(path.parent)[:100]), id="cut-in-header"),
    pytest.param(lambda path: path.write_bytes(good_bytes(path.parent)[:4]), id="four-bytes"),
    pytest.param(lambda path: path.write_bytes(good_bytes(path.parent) + b"more"), id="too-long"),
    pytest.param(lambda path: write(path, None), id="no-header"),
    pytest.param(lambda path: raw_safetensors(path, b"{" * 100_000), id="deep-safetensors-header"),
    pytest.param(lambda path: path.write_bytes(struct.pack("<Q", 2**63) + b"{}"), id="endless-header"),
    pytest.param(
        lambda path: raw_safetensors(
            path, json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
        ),
        id="huge-tensor",
    ),
    pytest.param(lambda path: path.write_text("<html>404</html>"), id="web-page"),
    pytest.param(lambda path: torch.save(a_model().network.state_dict(), path), id="torch-zip"),
]


@pytest.mark.parametrize("make", FILES)
def test_files_that_are_not_models(tmp_path, make):
    path = tmp_path / "m.safetensors"
    make(path)
    refused(path, "is not a readable napari-cropeq model")


def test_a_pickle_is_never_run(tmp_path):
    path, trace = tmp_path / "m.safetensors", tmp_path / "trace"
    path.write_bytes(pickle.dumps(Trap(trace)))
    refused(path, "is not a readable")
    torch.save({"a": Trap(trace)}, path)
    refused(path, "is not a readable")
    assert not trace.exists()
    pickle.loads(pickle.dumps(Trap(trace)))
    assert trace.exists(), "it would have left a trace"


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "m.safetensors"
    with open(path, "wb") as file:
        file.truncate(2**31 + 1)  # holes: takes no space
    refused(path, "larger than any model")


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_paths_that_are_not_files(tmp_path, kind):
    path = tmp_path / "m.safetensors"
    if kind == "folder":
        path.mkdir()
    with pytest.raises(MissingFileError, match=r"is not a file\. Choose a model file"):
        Model.load(path)


@pytest.mark.skipif(os.name != "posix", reason="resource limits are POSIX's")
def test_a_header_cannot_cause_a_large_allocation(tmp_path):
    """1024 filters in 64 blocks of 7 x 7 would take 26 GB."""
    path = tmp_path / "m.safetensors"
    write(path, json.dumps(header(network={"kind": "valid", "filters": 1024, "blocks": 64, "kernel": 7})))
    script = (
        "import resource, sys\n"
        "from napari_cropeq.core.model import Model\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (3 * 2**30,) * 2)\n"
        "try:\n    Model.load(sys.argv[1])\n"
        "except ValueError as error:\n    print('refused:', error)\n"
    )
    run = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.startswith("refused: m.safetensors is not a readable"), run.stderr


def test_the_file_is_plain_safetensors(tmp_path):
    """The safetensors package reads it with its header."""
    a_model().save(tmp_path / "m.safetensors")
    with safetensors.safe_open(tmp_path / "m.safetensors", framework="np") as file:
        head = json.loads(file.metadata()["cropeq"])
        assert file.get_tensor("head.weight").shape == (4, 1, 3, 3)
    assert head["format"] == FORMAT
    assert set(head["provenance"]["versions"]) == {"napari-cropeq", "torch", "numpy", "python"}


def test_a_flipped_bit_in_the_weights_is_found(tmp_path):
    path = tmp_path / "m.safetensors"
    a_model().save(path)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="its weights differ from those that were saved"):
        Model.load(path)


def altered(path: Path, alter) -> None:
    """Change the header of a model file, as a program that does not know its checksums would."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    tensors = json.loads(content[8:end])
    head = json.loads(tensors["__metadata__"]["cropeq"])
    alter(head)
    tensors["__metadata__"]["cropeq"] = json.dumps(head)
    raw_safetensors(path, json.dumps(tensors).encode(), content[end:])


ALTERED = [
    pytest.param(lambda head: head["acquisition"].update(voxel_size=[2.0, 0.411, 0.41]), id="voxel-size"),
    pytest.param(lambda head: head["acquisition"].update(fwhm=2.3), id="fwhm"),
    pytest.param(lambda head: head["acquisition"].update(unit="nanometer"), id="unit"),
    pytest.param(lambda head: head["normalisations"][0].update(high=4000.0), id="normalisation"),
    pytest.param(lambda head: head["normalisations"].pop(), id="one-normalisation-less"),
    pytest.param(lambda head: head["training"]["recipe"].update(seed=4), id="recipe"),
    pytest.param(lambda head: head["training"].update(losses=[]), id="losses"),
    pytest.param(lambda head: head["provenance"]["source"].update(name="other"), id="source"),
    pytest.param(lambda head: head["state"].update(steps=13), id="steps"),
    pytest.param(lambda head: head.update(more=1), id="one-entry-more"),
]


@pytest.mark.parametrize("alter", ALTERED)
def test_a_changed_header_is_found(tmp_path, alter):
    path = tmp_path / "m.safetensors"
    a_model(state=a_state()).save(path)
    altered(path, lambda head: None)
    assert Model.load(path).state.steps == 12, "only the spelling of the file has changed"
    altered(path, alter)
    refused(path, "its header or training state differs from what was saved")


def test_a_flipped_bit_in_the_training_state_is_found(tmp_path):
    path = tmp_path / "m.safetensors"
    a_model(state=a_state()).save(path)
    content = bytearray(path.read_bytes())
    end = 8 + int.from_bytes(content[:8], "little")
    start, _ = json.loads(content[8:end])["state/exp_avg/head.weight"]["data_offsets"]
    content[end + start] ^= 1
    path.write_bytes(content)
    refused(path, "its header or training state differs from what was saved")


def test_a_model_of_an_earlier_version_has_no_checksum(tmp_path):
    path = tmp_path / "m.safetensors"
    a_model(state=a_state()).save(path)
    altered(path, lambda head: head.pop("checksum"))
    assert Model.load(path).state.steps == 12


def test_loading_draws_no_random_numbers_and_no_first_weights(tmp_path, monkeypatch):
    model = a_model("subpixel")
    model.save(tmp_path / "m.safetensors")
    monkeypatch.setattr(torch.nn.init, "kaiming_normal_", only_shapes)
    before = torch.get_rng_state()
    network = Model.load(tmp_path / "m.safetensors").network
    assert torch.equal(torch.get_rng_state(), before)
    strides = {name: weight.stride() for name, weight in model.network.state_dict().items()}
    assert {name: weight.stride() for name, weight in network.state_dict().items()} == strides, "they select kernels"


def only_shapes(weight: torch.Tensor, **_: object) -> torch.Tensor:
    """Stand for the initialisation of a network: a hostile file of 2 GB of zeros must not cost it."""
    assert weight.is_meta
    return weight
