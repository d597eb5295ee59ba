"""Estimate the FWHM of the slice profile from a volume.

A volume of isotropic texture, blurred along its axial axis only, has the three-dimensional power

    P(kz, k) = P_iso(sqrt(kz² + k²)) * exp(-(2 pi sigma kz)²) + noise,

where k is the lateral frequency; sampling at the axial step folds it about the step's frequency. At kz = 0
nothing is blurred, so P_iso is measured at the lateral frequencies, and the blur by the decrease along kz at a given
sqrt(kz² + k²). This has two advantages over matching one-dimensional spectra of axial and lateral lines: structures
of fine lateral detail show the blur at axial frequencies below the Nyquist frequency, and the blur of lateral
*slices* across their thickness, which also removes fine detail from their spectra, has no effect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import optimize

from napari_cropeq.core.geometry import FWHM_PER_SIGMA, Acquisition, check_shape
from napari_cropeq.core.normalisation import check_dtype
from napari_cropeq.core.slice_profile.spectrum import TILE_SIDES, Spectra
from napari_cropeq.core.spline import ArrayLike

__all__ = ["Suggestion", "suggest_fwhm"]

Values = npt.NDArray[np.float64]

MIN_SLICES = 16
SEARCHED = (0.25, 8.0)
"""Smallest and largest FWHM tried, in axial steps."""

CANDIDATES = 41
RESAMPLINGS = 20
ANISOTROPY = 0.1
"""How much longer or shorter structures may be along the axial axis; its effect is part of the uncertainty."""

FLOOR = 0.1  # relative deviation of power from the model that is expected in any case
ROBUST = 2.5  # deviations beyond this many expected ones count linearly
KNOTS = 14
WIDEST_INTERVAL = 1.6  # high over low; wider intervals are of little use
WORST_MISMATCH = 0.2  # real volumes blurred by a known Gaussian stay below 0.16
DECAY = (2 * math.pi / FWHM_PER_SIGMA) ** 2  # of power, per (FWHM * frequency)²


@dataclass(frozen=True)
class Suggestion:
    """The FWHM of the slice profile that a volume suggests, and data to plot it.

    If the volume suggests none, ``fwhm``, ``low`` and ``high`` are NaN and ``reason`` says why; the plots remain.
    """

    fwhm: float
    """In the acquisition's unit, or NaN."""

    low: float
    """Lower end of the interval that the FWHM is expected in."""

    high: float
    """Upper end of that interval."""

    unit: str
    """Unit of the lengths; frequencies are in cycles per unit."""

    reason: str = ""
    """Why there is no number, as a sentence; empty if there is one."""

    candidates: Values = field(default_factory=lambda: np.empty(0))
    """(n,) FWHMs tried, in ``unit``."""

    mismatch: Values = field(default_factory=lambda: np.empty(0))
    """(n,) typical relative deviation of the axial power from that of lateral structure degraded by each candidate."""

    frequency: Values = field(default_factory=lambda: np.empty(0))
    """(m,) axial frequencies up to the step's Nyquist frequency, in cycles per unit."""

    axial: Values = field(default_factory=lambda: np.empty(0))
    """(m,) axial power, free of noise, over lateral power of the same spatial frequency."""

    degraded: Values = field(default_factory=lambda: np.empty((3, 0)))
    """(3, m) the same for lateral structure degraded by ``low``, ``fwhm`` and ``high``: the middle should match
    ``axial``."""

    @property
    def reliable(self) -> bool:
        """Whether the estimate is good enough to show a number."""
        return not self.reason


def suggest_fwhm(source: ArrayLike, acquisition: Acquisition, lateral_fwhm: float = 0.0, seed: int = 0) -> Suggestion:
    """Suggest the FWHM of the slice profile whose degradation of lateral structure best explains the axial power.

    Reads at most 3 boxes of 48 slices by 768 × 768 px. The FWHM of ``acquisition`` is neither used nor changed.

    Parameters
    ----------
    source : array-like (z, y, x)
        The volume.
    acquisition : Acquisition
        Voxel size and axial axis.
    lateral_fwhm : float
        FWHM of the lateral blur, in the acquisition's unit. The spectra give the difference of the axial and lateral
        variances; the lateral one is added back. 0 if slices are blurred by the slice profile directly.
    seed : int
        Determines the boxes read and the resampling.

    Raises
    ------
    ImageError
        If the source is too thin, too small laterally, of a dtype without intensities, or holds NaN or infinite voxels.
    """
    check_shape(source.shape, acquisition, TILE_SIDES[-1])
    check_dtype(source.dtype)
    spectra = Spectra.measure(source, acquisition, seed)
    if spectra is None:
        nan = math.nan
        return Suggestion(nan, nan, nan, acquisition.unit, "The image is constant in the parts that were read.")
    fit = _BlurFit.of(spectra, acquisition.factor)
    best = fit.solve()
    low, high = _interval(spectra, fit, best, acquisition.factor, seed)
    reason = _reason(source.shape[acquisition.axial], best, low, high, acquisition.factor)

    steps = np.geomspace(*SEARCHED, CANDIDATES) * acquisition.factor
    px, lateral = acquisition.lateral_step, lateral_fwhm
    fwhm, lower, upper = (math.hypot(f * px, lateral) if not reason else math.nan for f in (best.fwhm, low, high))
    return Suggestion(
        fwhm,
        lower,
        upper,
        unit=acquisition.unit,
        reason=reason,
        candidates=np.hypot(steps * px, lateral),
        mismatch=fit.scan(steps, best),
        frequency=spectra.axial / acquisition.voxel_size[acquisition.axial],
        axial=fit.transfer(fit.power, best),
        degraded=np.stack([fit.transfer(fit.model(best.state, math.log(f)), best) for f in (low, best.fwhm, high)]),
    )


def _reason(slices: int, best: _Solution, low: float, high: float, factor: float) -> str:
    """Return why there is no estimate; empty if there is one."""
    if slices < MIN_SLICES:
        return f"The stack has {slices} slices, and at least {MIN_SLICES} are needed to measure the axial blur."
    if not math.isfinite(high / low) or high > WIDEST_INTERVAL * low:
        return "Very different widths explain the volume equally well: too little structure stands out from the noise."
    if not 1.01 * SEARCHED[0] < best.fwhm / factor < 0.99 * SEARCHED[1]:
        return "No width between a quarter of the step and 8 steps explains the volume."
    if best.mismatch > WORST_MISMATCH:
        return "The axial direction does not look like a lateral one that is blurred by a Gaussian of any width."
    return ""


def _interval(spectra: Spectra, fit: _BlurFit, best: _Solution, factor: float, seed: int) -> tuple[float, float]:
    """Return the interval that the FWHM is expected in, lateral px.

    Four sources add in squares: the choice of tiles, either lateral direction as the reference, structures that are
    longer or shorter axially, and a misfit as large as the part that is not explained.
    """
    rng = np.random.default_rng(seed)
    count = len(spectra.power)
    drawn = [spectra.power[rng.integers(0, count, count)].mean(axis=(0, 1)) for _ in range(RESAMPLINGS)]
    # Two standard deviations, and half as much again since neighbouring tiles overlap.
    chance = 3 * float(np.std([fit.replaced(power).solve(best).log_fwhm for power in drawn]))
    sectors = [_BlurFit.of(spectra, factor, sector=s).solve(best).log_fwhm - best.log_fwhm for s in (0, 1)]
    stretches = [1 / (1 + ANISOTROPY), 1 + ANISOTROPY]
    shifts = [_BlurFit.of(spectra, factor, stretch=s).solve(best).log_fwhm - best.log_fwhm for s in stretches]
    unexplained = best.mismatch / max(fit.sensitivity(best), 1e-9)
    common = chance**2 + max(abs(s) for s in sectors) ** 2 + unexplained**2
    down, up = (math.sqrt(common + s**2) for s in (min(*shifts, 0.0), max(*shifts, 0.0)))
    return best.fwhm * math.exp(-down), best.fwhm * math.exp(min(up, 50.0))


@dataclass(frozen=True)
class _Solution:
    """Result of a fit: the log power at the knots and of the noise, and the log of the FWHM in lateral px."""

    state: Values
    log_fwhm: float
    cost: float
    mismatch: float

    @property
    def fwhm(self) -> float:
        return math.exp(self.log_fwhm)


@dataclass(frozen=True)
class _BlurFit:
    """Fits the model of the module's docstring to measured power, all frequencies in cycles per lateral pixel."""

    power: Values  # (axial frequencies, rings)
    expected: Values  # (axial frequencies, rings), relative deviations
    squares: Values  # (axial frequencies + 2, aliases, 1), squared axial frequency
    table: Values  # (axial frequencies + 2, aliases, rings, knots), weights that interpolate P_iso
    factor: float
    start: Values  # (knots + 1,)

    @classmethod
    def of(cls, spectra: Spectra, factor: float, sector: int | None = None, stretch: float = 1.0) -> _BlurFit:
        """Set up the fit; ``stretch`` is the assumed ratio of axial to lateral size of structures."""
        chosen = slice(None) if sector is None else slice(sector, sector + 1)
        power = spectra.power[:, chosen].mean(axis=(0, 1))
        modes = len(spectra.power) * spectra.modes[chosen].sum(axis=0)
        both = np.where((spectra.axial > 0) & (spectra.axial < 0.5), 2, 1)[:, None]
        # One more frequency at either end, whose power the Hann window spreads inwards.
        steps = np.arange(-1, len(spectra.axial) + 1) / spectra.depth
        reach = max(2, math.ceil(0.6 * factor))
        kz = ((steps[:, None] + np.arange(-reach, reach + 1)) / factor)[:, :, None]
        radius = np.log(np.sqrt((stretch * kz) ** 2 + spectra.rings**2))
        knots = np.linspace(math.log(0.98 * spectra.rings[0]), math.log(spectra.rings[-1]), KNOTS)
        noise = max(float(power.min()), 1e-12)
        signal = np.maximum(power[0] - 0.9 * noise, 0.02 * power[0])
        start = np.append(np.interp(knots, np.log(spectra.rings), np.log(signal)), math.log(0.5 * noise))
        return cls(power, np.sqrt(1 / (modes * both) + FLOOR**2), kz**2, _hats(radius, knots), factor, start)

    def replaced(self, power: Values) -> _BlurFit:
        """Return the same fit to other measured power."""
        return _BlurFit(power, self.expected, self.squares, self.table, self.factor, self.start)

    def solve(self, near: _Solution | None = None) -> _Solution:
        """Return the best FWHM, searched from several widths, or from a nearby solution."""
        if near is not None:
            return self._descend(near.state, near.log_fwhm, free=True)
        found = [self._descend(self.start, math.log(w * self.factor), free=True) for w in (0.6, 1.2, 2.5)]
        return min(found, key=lambda solution: solution.cost)

    def scan(self, widths: Values, best: _Solution) -> Values:
        """Return the mismatch (n,) at each FWHM in ``widths``, with all else fitted."""
        found = {}
        for side in (widths[widths >= best.fwhm], widths[widths < best.fwhm][::-1]):
            state = best.state  # each fit starts at its neighbour's result
            for width in side:
                solution = self._descend(state, math.log(width), free=False)
                state, found[width] = solution.state, solution.mismatch
        return np.array([found[width] for width in widths])

    def model(self, state: Values, log_fwhm: float) -> Values:
        """Return the power (axial frequencies, rings) predicted for a state and an FWHM."""
        return _leaked(self._aliases(state, log_fwhm).sum(axis=1)) + math.exp(state[KNOTS])

    def transfer(self, power: Values, best: _Solution) -> Values:
        """Return the ratio (axial frequencies,) of noise-free power to unblurred lateral power at each frequency."""
        middle = self.squares.shape[1] // 2
        lateral = np.exp(self.table[1:-1, middle] @ best.state[:KNOTS])
        weight = lateral / (self.model(best.state, best.log_fwhm) * self.expected) ** 2
        ratio: Values = (weight * (power - math.exp(best.state[KNOTS]))).sum(axis=1) / (weight * lateral).sum(axis=1)
        return ratio

    def sensitivity(self, best: _Solution) -> float:
        """Return the RMS change of log power with the log of the FWHM that other parameters cannot compensate."""
        slopes = self._slopes(best.state, best.log_fwhm, free=True)
        width, others = slopes[:, -1], slopes[:, :-1]
        left = width - others @ np.linalg.lstsq(others, width)[0]
        return FLOOR * ROBUST * math.sqrt(float((left**2).sum()) / self.power.size)

    def _aliases(self, state: Values, log_fwhm: float) -> Values:
        log_power = self.table @ state[:KNOTS]
        blur = DECAY * math.exp(2 * log_fwhm) * self.squares
        # Beyond the last ring P_iso is extrapolated; the limit keeps it from growing too large.
        return np.exp(np.clip(log_power, -700, state[:KNOTS].max() + 1) - blur)

    def _descend(self, state: Values, log_fwhm: float, free: bool) -> _Solution:
        def unpack(x: Values) -> tuple[Values, float]:
            return (x[:-1], float(x[-1])) if free else (x, log_fwhm)

        start = np.append(state, log_fwhm) if free else state
        low, high = np.full(len(start), -np.inf), np.full(len(start), np.inf)
        if free:
            low[-1], high[-1] = (math.log(edge * self.factor) for edge in SEARCHED)
            start[-1] = np.clip(start[-1], low[-1] + 1e-6, high[-1] - 1e-6)
        result = optimize.least_squares(
            lambda x: self._deviations(*unpack(x)),
            start,
            jac=lambda x: self._slopes(*unpack(x), free),
            bounds=(low, high),
            loss="soft_l1",
            max_nfev=40,
            ftol=1e-5,
            xtol=1e-5,
        )
        mismatch = FLOOR * ROBUST * math.sqrt(2 * result.cost / self.power.size)
        return _Solution(*unpack(result.x), float(result.cost), mismatch)

    def _deviations(self, state: Values, log_fwhm: float) -> Values:
        gap = (np.log(self.power) - np.log(self.model(state, log_fwhm))) / (ROBUST * self.expected)
        return np.concatenate([gap.ravel(), _ROUGHNESS @ state[:KNOTS]])

    def _slopes(self, state: Values, log_fwhm: float, free: bool) -> Values:
        aliases = self._aliases(state, log_fwhm)
        noise = math.exp(state[KNOTS])
        model = _leaked(aliases.sum(axis=1)) + noise
        parts = [_leaked(np.einsum("jmk,jmkp->jkp", aliases, self.table)), np.full((*model.shape, 1), noise)]
        if free:
            blur = -2 * DECAY * math.exp(2 * log_fwhm) * self.squares
            parts.append(_leaked((aliases * blur).sum(axis=1))[:, :, None])
        slopes = -np.concatenate(parts, axis=2) / (model * ROBUST * self.expected)[:, :, None]
        smooth = np.zeros((len(_ROUGHNESS), slopes.shape[2]))
        smooth[:, :KNOTS] = _ROUGHNESS
        return np.concatenate([slopes.reshape(-1, slopes.shape[2]), smooth])


_ROUGHNESS = 0.3 * np.diff(np.eye(KNOTS), 3, axis=0)


def _leaked(power: Values) -> Values:
    """Return power as a Hann window changes it: each axial frequency mixes with its two neighbours (first axis)."""
    mixed: Values = (power[:-2] + 4 * power[1:-1] + power[2:]) / 6
    return mixed


def _hats(positions: Values, knots: Values) -> Values:
    """Return weights (..., knots) for linear interpolation between even knots and extrapolation beyond them."""
    place = (positions - knots[0]) / (knots[1] - knots[0])
    left = np.clip(np.floor(place), 0, len(knots) - 2)
    part = (place - left)[..., None]
    index = np.arange(len(knots)) - left[..., None]
    weights: Values = np.where(index == 0, 1 - part, np.where(index == 1, part, 0.0))
    return weights
