"""Delay of a timer in the window while the Train widget trains, compared with idle napari in the same process.

A timer ticks every 10 ms in a real window while the slider is stepped ten times a second. Every tick that was due is
counted, also those missed during a stall: a stall of 100 ms is ten late ticks, not one. Idle and training periods
alternate. A training period starts when Start is pressed, so that it includes reading the volume, checkpoints, curves
and thumbnails. Prints a table and writes results/heartbeat.json.

    scripts/with-display python benchmarks/heartbeat.py [--seconds 60] [--runs 3]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication

from napari_cropeq.evidence.machine import describe_machine, load_average

ROOT = Path(__file__).resolve().parents[1]
BEAT = 0.010
STEP = 0.100
LIMIT_MS = 30


class Heartbeat:
    """A timer that runs while the view is moved ten times a second; :attr:`delays` (s) are of all ticks due."""

    def __init__(self, move: Callable[[], None]) -> None:
        self._move = move
        self._last = self._moved = 0.0
        self.delays: list[float] = []
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(round(1000 * BEAT))
        self._timer.timeout.connect(self._beat)

    def run(self, seconds: float, begin: Callable[[], None]) -> np.ndarray:
        """Call ``begin``, and return the delays (n,) in ms during ``seconds`` after it."""
        self.delays, self._last = [], time.perf_counter()
        self._timer.start()
        begin()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            QApplication.processEvents()
            time.sleep(0.0005)
        self._timer.stop()
        return 1000 * np.array(self.delays)

    def _beat(self) -> None:
        now = time.perf_counter()
        late = now - self._last - BEAT
        self.delays.append(max(late, 0.0))
        self.delays.extend(late - BEAT * k for k in range(1, int(late / BEAT) + 1))
        self._last = now
        if now - self._moved >= STEP:
            self._moved = now
            self._move()


def stepper(viewer: napari.Viewer) -> Callable[[], None]:
    """Return a function that moves the slider by one slice; the first follows the last."""
    axis = viewer.dims.ndim - 3

    def move() -> None:
        viewer.dims.set_current_step(axis, (viewer.dims.current_step[axis] + 1) % int(viewer.dims.nsteps[axis]))

    return move


def spin(seconds: float) -> None:
    """Process events of the window for some time."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        QApplication.processEvents()
        time.sleep(0.005)


def summary(delays: np.ndarray) -> dict[str, float]:
    """Return percentiles of delays (n,) in ms."""
    p50, p99 = np.percentile(delays, (50, 99))
    return {"beats": len(delays), "p50_ms": round(p50, 2), "p99_ms": round(p99, 2), "max_ms": round(delays.max(), 2)}


def period(heartbeat: Heartbeat, widget: Any, seconds: float, training: bool) -> dict[str, Any]:
    """Measure one period, idle or training."""
    load = load_average()
    if training:
        widget.config.set_budget(minutes=(seconds + 60) / 60)
        found = summary(heartbeat.run(seconds, widget.buttons["start"].native.click))
        points = widget.curves.points
        if widget.complaining:
            raise RuntimeError(f"The training did not run: {widget.message.text()}")
        found["patches"] = points[-1][0] if points else 0
        widget.buttons["stop"].native.click()
        while widget._job is not None:
            spin(0.1)
    else:
        found = summary(heartbeat.run(seconds, lambda: None))
    spin(1.0)
    return {"kind": "training" if training else "idle", **found, "load_average": load}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each period")
    parser.add_argument("--runs", type=int, default=3, help="periods of each kind")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "heartbeat.json")
    options = parser.parse_args()

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 950)
    viewer.open_sample("napari-cropeq", "light_sheet")
    widget = viewer.window.add_plugin_dock_widget("napari-cropeq", "Train")[1].panels["Train"]
    widget.config.preset.value = options.preset
    spin(3.0)
    heartbeat = Heartbeat(stepper(viewer))
    heartbeat.run(3.0, lambda: None)  # without what is drawn for the first time
    spells = []
    for number in range(2 * options.runs):
        spells.append(period(heartbeat, widget, options.seconds, training=number % 2 == 1))
        print("  ".join(f"{key} {value}" for key, value in spells[-1].items()), flush=True)
    medians = {
        kind: float(np.median([s["p99_ms"] for s in spells if s["kind"] == kind])) for kind in ("idle", "training")
    }
    result = {
        "seconds": options.seconds,
        "preset": options.preset,
        "median_p99_ms": medians,
        "difference_ms": round(medians["training"] - medians["idle"], 2),
        "limit_ms": LIMIT_MS,
        "max_ms": {kind: max(s["max_ms"] for s in spells if s["kind"] == kind) for kind in medians},
        "spells": spells,
        "machine": describe_machine() | {"napari": napari.__version__},
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"p99 idle {medians['idle']:.1f} ms, training {medians['training']:.1f} ms (medians of {options.runs}): ",
        end="",
    )
    print(f"{result['difference_ms']:+.1f} ms, limit {LIMIT_MS}; maxima {result['max_ms']}")
    viewer.close()


if __name__ == "__main__":
    main()
