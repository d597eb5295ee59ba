"""The report on a result: its figures on known truth, what it warns of, its files, and its errors before any work."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

import napari_cropeq as cq
from conftest import Recorded, acquired, blobs, textured_volume
from files import a_model, a_stack, with_tail
from napari_cropeq.cli.main import main
from napari_cropeq.core.geometry import FWHM_PER_SIGMA, Acquisition
from napari_cropeq.core.imaging.consistency import Consistency, NoiseLevel
from napari_cropeq.core.imaging.forward_model import ForwardModel
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.spline import interpolate
from napari_cropeq.errors import ArgumentError, MismatchError, MissingFileError, MissingPackageError, StoppedError
from napari_cropeq.evidence.trust.comparison import compare
from napari_cropeq.evidence.trust.doubts import inferred
from napari_cropeq.evidence.trust.resolution import AxialResolution, _finest, check_cubic, measure_resolution
from napari_cropeq.run.error_output import error_of

FACTOR = 4


def quietly(step) -> None:
    """Take the progress."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return the paths of a source, a model with an expected error, and a result with the file of its errors."""
    folder = tmp_path_factory.mktemp("trust")
    stack = a_stack(folder / "stack.ome.tif")
    model = with_tail(a_model(correction=2.0))
    model.save(folder / "m.safetensors")
    cq.export(stack, model, folder / "stack_SR.ome.zarr", error=True, device="cpu", callback=quietly)
    return stack, folder / "m.safetensors", folder / "stack_SR.ome.zarr"


def test_the_finest_structure_along_z_is_that_of_the_truth():
    """Of interpolated slices it is two steps, of a softer result larger than of the truth, and there as laterally."""
    truth = blobs((96, 64, 64))
    slices = acquired(truth, FACTOR)
    mirrored = np.concatenate([slices[:0:-1], slices, slices[-2::-1]])
    interpolated = interpolate(torch.from_numpy(mirrored), -(len(slices) - 1), 0, len(truth), float(FACTOR)).numpy()
    soft = ndimage.gaussian_filter1d(truth, 2.5 / FWHM_PER_SIGMA, axis=0)
    before, softer, sharp, turned = (
        _finest(check_cubic(), v, axis) for v, axis in ((interpolated, 0), (soft, 0), (truth, 0), (truth[:64], 2))
    )
    assert 0.85 * 2 * FACTOR < before < 1.4 * 2 * FACTOR
    assert sharp < 0.9 * softer < 0.9 * before
    assert turned == pytest.approx(sharp, rel=0.15)


def test_no_figure_is_better_than_the_sampling_allows():
    """Fine structure in the interpolation of acquired slices can only be noise."""
    noise = np.random.default_rng(0).normal(size=(48, 40, 40))
    found = measure_resolution(lambda box: noise[box.slices], noise, Acquisition((4.0, 1.0, 1.0)))
    assert found.limit == 8
    assert found.before is None or found.before[0] >= 8
    assert found.after is None or found.after[0] >= 2


RESOLUTIONS = [
    pytest.param((2.0, 2.5, 3.0), (1.2, 1.3, 1.4), "along z is 1.3 µm (1.2 to 1.4)", "2 µm at most", id="both"),
    pytest.param(None, (1.2, 1.3, 1.4), "along z is 1.3 µm (1.2 to 1.4)", "none was found in them", id="after"),
    pytest.param((2.0, 2.5, 3.0), None, "along z could not be measured", "too few", id="neither"),
]


@pytest.mark.parametrize(("before", "after", "begin", "rest"), RESOLUTIONS)
def test_the_resolution_is_a_sentence_and_a_warning(before, after, begin, rest):
    found = AxialResolution("z", "micrometer", 2.0, before, after, 4)
    assert begin in found.text
    assert rest in found.text
    assert ("without making it true" in found.warning) == (after is not None)


def test_without_cubic_it_is_said_how_to_install_it(monkeypatch, exported):
    monkeypatch.setitem(sys.modules, "cubic", None)
    monkeypatch.setitem(sys.modules, "cubic.metrics.spectral", None)
    with pytest.raises(MissingPackageError, match=r"pip install \"napari-cropeq\[trust\]\""):
        check_cubic()
    stack, model, result = exported
    report = cq.trust(result, stack, model, device="cpu", callback=quietly)
    assert report.resolution is None
    assert "pip install" in report.sentences["resolution"]
    assert "cubic" not in report.methods


def test_the_command_writes_figures_pictures_and_a_page(exported, tmp_path, capsys):
    stack, model, result = exported
    out = tmp_path / "out"
    for _ in range(2):  # the second time it replaces its files
        assert main(["trust", str(result), str(stack), "-m", str(model), "-o", str(out), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    names = ["differences.png", "maps.png", "trust.html", "trust.json"]
    assert sorted(path.name for path in out.iterdir()) == names
    figures = json.loads((out / "trust.json").read_text(encoding="utf-8"))
    assert figures["expected error"]["origin"] == "file"
    assert figures["sentences"]["consistency"].startswith("Re-imaged, the result differs from the acquired slices")
    assert figures["consistency"]["compared"] == 1
    page = (out / "trust.html").read_text(encoding="utf-8")
    for sentence in (*figures["sentences"].values(), *figures["warnings"], figures["methods"]):
        assert sentence in printed
        assert sentence.replace("'", "&#x27;").replace('"', "&quot;") in page
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page
    assert "napari-cropeq" in figures["methods"] and "factor of 4" in figures["methods"]
    assert all((out / name).read_bytes()[:4] == b"\x89PNG" for name in names[:2])


def test_the_expected_error_comes_from_the_file_the_model_or_the_planes(exported):
    """The file has what the model computes. Without either, it is the disagreement of planes, and no interval."""
    stack, path, result = exported
    voxels = np.asarray(cq.open_image(result).data)
    model = cq.Model.load(path)
    file, own, planes = (
        cq.trust(given, stack, with_, device="cpu", callback=quietly)
        for given, with_ in ((result, model), (voxels, model), (voxels, replace(model, error_tail=None)))
    )
    assert [report.expected.origin for report in (file, own, planes)] == ["file", "model", "planes"]
    assert file.expected.mean == pytest.approx(own.expected.mean)
    assert np.array_equal(file.section.error, own.section.error)
    assert not planes.expected.intervals
    assert "This is no interval" in planes.expected.text
    assert "nine of ten" in own.expected.text
    one, other = (
        cq.super_resolve(stack, model, planes=p, dtype="float32", device="cpu", callback=quietly) for p in "xy"
    )
    plane = np.abs(one - other)[:, (one.shape[1] - 1) // 2] / 2
    assert planes.section.error == pytest.approx(plane, abs=1e-3)
    assert planes.expected.mean == pytest.approx(np.abs(one - other).mean() / 2, rel=1e-3)


def a_volume(**changes) -> tuple[np.ndarray, np.ndarray, cq.Model]:
    """Return a noisy source, its truth, and a model that says it was trained on it."""
    truth = (200 + 2000 * blobs((24 * FACTOR, 64, 72))).astype(np.float32)
    noise = np.random.default_rng(0).normal(size=(24, 64, 72)) * 20
    source = np.rint(acquired(truth, FACTOR) + noise).astype(np.uint16)
    model = a_model()
    model.normalisations = [Normalisation.measure(source)]
    model.provenance = {"source": {"shape": [24, 64, 72], "dtype": "uint16", "name": "array"}}
    return source, truth, replace(model, **changes)


def test_the_truth_is_trusted_and_a_planted_blob_is_not():
    """And it is said where it is."""
    source, truth, model = a_volume()
    size = (4.0, 1.0, 1.0)
    claimed = truth.copy()
    claimed[40:52, 20:32, 30:42] += 600
    honest, invented = (cq.trust(v, source, model, size, device="cpu", callback=quietly) for v in (truth, claimed))
    assert honest.comparison.agreement.rms == pytest.approx(1, abs=0.1)
    assert not [sentence for sentence in honest.warnings if "contradicts" in sentence]
    [warning] = [sentence for sentence in invented.warnings if "contradicts" in sentence]
    z, y, x = invented.comparison.place
    assert 10 <= z < 13 and 20 <= y < 32 and 30 <= x < 42
    assert f"z {z}, y {y}, x {x}" in warning
    assert invented.comparison.worst > 4 * honest.comparison.worst


def saturated(source, truth, model):
    return np.minimum(source, 600), truth, model


def another_image(source, truth, model):
    return source, truth, replace(model, provenance={"source": {"name": "elsewhere", "shape": [9, 9, 9]}})


def unknown_image(source, truth, model):
    return source, truth, replace(model, provenance={})


def few_slices(source, truth, model):
    return source[:4], truth[:16], replace(model, network=a_model(blocks=7).network)


def another_fwhm(source, truth, model):
    return source, truth, replace(model, acquisition=replace(model.acquisition, fwhm=9.0))


def correlated_noise(source, truth, model):
    noise = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=source.shape), (0, 1, 1)) * 400
    return np.clip(source + noise, 0, 65535).astype(np.uint16), truth, model


DOUBTS = [
    pytest.param(another_fwhm, "has an FWHM of 9 µm, but the image suggests 4 µm", id="another-fwhm"),
    pytest.param(correlated_noise, "correlated between neighbouring pixels", id="correlated-noise"),
    pytest.param(saturated, "have the highest intensity (600)", id="saturated"),
    pytest.param(another_image, "trained on another image (elsewhere)", id="another-image"),
    pytest.param(unknown_image, "The model does not say that this is its image.", id="unknown-image"),
    pytest.param(few_slices, "The stack has 4 slices.", id="few-slices"),
]


@pytest.mark.parametrize(("change", "words"), DOUBTS)
def test_reasons_not_to_trust_it_are_found(change, words):
    source, truth, model = change(*a_volume())
    report = cq.trust(truth, source, model, (4.0, 1.0, 1.0), device="cpu", callback=quietly)
    assert [sentence for sentence in report.warnings if words in sentence]


def test_without_reasons_there_is_none(exported):
    source, truth, model = a_volume()
    report = cq.trust(truth, source, model, (4.0, 1.0, 1.0), device="cpu", callback=quietly)
    assert report.warnings == ()
    assert "without making it true" in report.sentences["resolution"]
    assert "without making it true" not in report.methods
    assert "inferred" in report.sentences
    assert "save(FOLDER)" in repr(report)


def test_a_result_of_another_model_is_named(exported):
    stack, _, result = exported
    other = with_tail(a_model(filters=5))
    report = cq.trust(result, stack, other, device="cpu", callback=quietly)
    assert report.expected.origin == "model", "the file beside it is of the model that made the result"
    assert "made by another model" in report.warnings[0] and report.methods.startswith("There is no paragraph")


def test_a_result_of_another_image_is_named(exported, tmp_path):
    stack, model, result = exported
    other = shutil.copy(stack, tmp_path / "other.ome.tif")
    report = cq.trust(result, other, model, device="cpu", callback=quietly)
    assert report.warnings[0].startswith("The result was computed from stack (")
    assert "not from other (" in report.warnings[0] and report.methods.startswith("There is no paragraph")


def test_expected_errors_are_no_result(exported):
    stack, model, result = exported
    with pytest.raises(ArgumentError, match="has expected errors, not a result"):
        cq.trust(error_of(result), stack, model, device="cpu", callback=quietly)


@pytest.mark.parametrize(
    ("factor", "text"),
    [
        pytest.param(2.433, None, id="small"),
        pytest.param(4.0, "Of 4 slices of the result, 1 was acquired and 3 are inferred from lateral", id="four"),
        pytest.param(15.0, "Of 15 slices of the result, 1 was acquired and 14 are inferred", id="fifteen"),
    ],
)
def test_at_large_factors_it_is_said_what_is_inferred(factor, text):
    found = inferred(factor)
    assert (found == {}) if text is None else text in found["inferred"]


def test_the_axial_axis_may_be_another():
    """The maps are those of the volume that is turned."""
    data = textured_volume((8, 20, 24))
    model = a_model()
    sr = cq.super_resolve(data, model, (4, 1, 1), dtype="float32", device="cpu", callback=quietly)
    report = cq.trust(sr, data, model, (4, 1, 1), device="cpu", callback=quietly)
    turned = replace(model, acquisition=replace(model.acquisition, voxel_size=(1.0, 1.0, 4.0), axial=2))
    other = cq.trust(sr.transpose(1, 2, 0), data.transpose(1, 2, 0), turned, (1, 1, 4), device="cpu", callback=quietly)
    assert other.section.axes == "xy"
    assert other.comparison.agreement.rms == pytest.approx(report.comparison.agreement.rms, rel=0.02)
    assert other.section.result.shape == (*report.section.result.shape[:1], 24)


@pytest.mark.parametrize(
    ("most", "part"), [pytest.param(2**32, 1.0, id="all"), pytest.param(6000, 0.5, id="spread-parts")]
)
def test_a_large_volume_is_compared_part_by_part(monkeypatch, most, part):
    """Each part is small, and the numbers are those of the whole; of a huge volume, some parts are compared."""
    forward = ForwardModel(Acquisition((4.0, 1.0, 1.0)), (22, 14, 12))
    consistency = Consistency(forward, NoiseLevel(1.0, 0.0, 1.0, 0.0, 4000.0))
    volume, source = textured_volume((88, 14, 12)), textured_volume((22, 14, 12), 1)

    def found(result):
        steps = compare(consistency, result, source, lambda: False)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value

    whole = found(volume)
    monkeypatch.setattr("napari_cropeq.evidence.trust.comparison.SIDE", 5)
    monkeypatch.setattr("napari_cropeq.evidence.trust.comparison.ROWS", 16)
    monkeypatch.setattr("napari_cropeq.evidence.trust.comparison.MOST", most)
    recorded = Recorded(volume)
    parts = found(recorded)
    assert max(recorded.sizes) <= (16 + 10) * 25
    assert parts.part == pytest.approx(part, abs=0.2)
    if part == 1:
        assert np.array_equal(parts.agreement.counts, whole.agreement.counts)
        assert (parts.saturated, parts.highest) == (whole.saturated, whole.highest)


def test_a_channel_at_a_time_point():
    """Its figures are those of the volume alone."""
    data = np.stack([textured_volume((8, 20, 24), n) for n in range(4)]).reshape(2, 2, 8, 20, 24)
    model, size = a_model(), (4, 1, 1)
    sr = cq.super_resolve(data, model, size, device="cpu", callback=quietly)
    one = cq.trust(sr, data, model, size, channel=1, time=0, device="cpu", callback=quietly)
    noise = one.comparison.agreement.noise
    alone = cq.trust(sr[0, 1], data[0, 1], model, size, device="cpu", callback=quietly)
    assert one.about["place"] == {"t": 0, "c": 1}
    assert np.array_equal(one.section.acquired, alone.section.acquired)
    assert np.array_equal(one.section.result, alone.section.result)
    assert noise.slope == pytest.approx(alone.comparison.agreement.noise.slope)


WRONG = [
    pytest.param({"result": np.zeros((9, 20, 40), np.uint16)}, MismatchError, "the SR grid", id="another-grid"),
    pytest.param({"result": "missing.ome.zarr"}, MissingFileError, "missing.ome.zarr", id="no-such-result"),
    pytest.param({"channel": 3}, ArgumentError, "no channel 3", id="no-such-channel"),
    pytest.param({"voxel_size": (3, 1, 1)}, MismatchError, "factor 4", id="another-factor"),
]


@pytest.mark.parametrize(("arguments", "kind", "words"), WRONG)
def test_wrong_arguments_are_refused_before_any_work(exported, arguments, kind, words):
    stack, model, result = exported
    steps = []
    with pytest.raises(kind, match=words):
        cq.trust(
            **({"result": result, "source": stack, "model": model} | arguments), device="cpu", callback=steps.append
        )
    assert not steps


def test_the_callback_can_stop_it(exported):
    stack, model, result = exported
    with pytest.raises(StoppedError, match="while imaging the result again"):
        cq.trust(result, stack, model, device="cpu", callback=lambda step: False)
