"""A prediction that takes a given time: as many steps and proposals as fit on this machine.

The time that is left after encoding is known, not forecast. Steps and the end are forecast by what
they took before on this machine (`costs`); of all pairs that fit the one that is worth most is run
(`front`), and of pairs worth about as much the one of most steps: steps come one by one, so that a
run ends early, or goes on, as the clock says.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from diffinst.config import Options
from diffinst.diffusion.start import Start
from diffinst.inference.costs import PROBES, Clock, Costs, Shelf, key_of, measured
from diffinst.inference.front import Front
from diffinst.inference.launch import direct
from diffinst.inference.pipeline import Pipeline, Size, Step
from diffinst.results.instances import Instances
from diffinst.results.meta import Meta
from diffinst.structures import Encoded

if TYPE_CHECKING:
    from diffinst.inference.runner import Runner

FEWEST, MOST, GRAIN = 100, 2000, 20  # proposals that are tried
AIM, LATE = 0.95, 1.03  # parts of the time: planned, and until when a step may bring the end
NEAR = 0.001  # AP by which pairs are worth about as much
REMEMBERED, ENOUGH = 8, 5  # runs whose times correct forecasts; runs that show a drift
DRIFT = 1.15  # times a forecast, or a part of it, from which on what is kept is corrected


@dataclass(frozen=True)
class Plan:
    """What a budget is spent on.

    Attributes:
        steps: Until the clock says otherwise.
        proposals: Of each.
        fits: Whether it is expected to end in time.
    """

    steps: int
    proposals: int
    fits: bool


def planned(
    costs: Costs,
    front: Front,
    options: Options,
    left: float,
    sizes: Sequence[int] = tuple(range(FEWEST, MOST + 1, GRAIN)),
) -> Plan:
    """What is worth most of what fits; the fastest where nothing does.

    Args:
        costs: Forecasts.
        front: Worth.
        options: What is free, and what the rest is.
        left: Seconds until the result is due.
        sizes: Numbers of proposals to choose from, rising, where they are free.
    """
    free = "steps" in options.free
    steps = front.steps(options.kind, options.most_steps) if free else (options.steps,)
    counts = np.array(sizes if "proposals" in options.free else [options.proposals], dtype=float)
    plans: list[tuple[float, Plan]] = []
    for number in steps:
        needed = number * costs.of_step(counts) + costs.of_end(number * counts)
        fitting = counts[needed <= left]
        if len(fitting):
            worth = front.worth(options.kind, number, fitting)
            best = int(np.flatnonzero(worth == worth.max())[-1])  # of equals the most proposals
            plans.append((float(worth[best]), Plan(number, int(fitting[best]), fits=True)))
    if not plans:
        return Plan(min(steps), int(counts[0]), fits=False)
    highest = max(worth for worth, _ in plans)
    return max((plan for worth, plan in plans if worth >= highest - NEAR), key=lambda p: p.steps)


def longest(front: Front, options: Options, plan: Plan) -> int:
    """The steps that a run may go on to: up to twice its plan's, where these are worth no less."""
    most = min(2 * plan.steps, options.most_steps)
    worth = {
        number: front.worth(options.kind, number, [plan.proposals])[0]
        for number in front.steps(options.kind, most)
    }
    least = worth.get(plan.steps, 0.0)
    return max((n for n in worth if n > plan.steps and worth[n] >= least), default=plan.steps)


class Budget:
    """Forecasts of one network, and what its last runs took against them.

    Args:
        clock: Tells the time.
        front: What steps and proposals are worth.
        shelf: Keeps costs.
    """

    def __init__(
        self, clock: Clock, front: Front | None = None, shelf: Shelf | None = None
    ) -> None:
        self.clock, self.front, self.shelf = clock, front or Front(), shelf or Shelf()
        self._costs: dict[str, Costs] = {}
        self._ratios: dict[str, deque[tuple[float, float]]] = {}

    def kept(self, key: str) -> Costs | None:
        """What a key's steps and ends take, as they took it in the last runs; None: not known."""
        if key not in self._costs:
            found = self.shelf.read(key)
            if found is None:
                return None
            self._costs[key] = found
        return self._costs[key].scaled(*self._lately(key))

    def keep(self, key: str, costs: Costs) -> None:
        """Remember what was measured, here and for programs to come."""
        self._costs[key] = costs
        self._ratios.pop(key, None)
        self.shelf.write(key, costs)

    def learn(self, key: str, step: float, end: float) -> None:
        """Take in how many times what is kept a run's steps and its end took.

        Forecasts follow at once; what is kept does where several runs agree.
        """
        self._ratios.setdefault(key, deque(maxlen=REMEMBERED)).append((step, end))
        lately = self._lately(key)
        drifted = any(not 1 / DRIFT <= ratio <= DRIFT for ratio in lately)
        if drifted and len(self._ratios[key]) >= ENOUGH:
            self.keep(key, self._costs[key].scaled(*lately))

    def base(self, key: str) -> Costs:
        """What is kept, without corrections."""
        return self._costs[key]

    def _lately(self, key: str) -> tuple[float, float]:
        ratios = self._ratios.get(key)
        if not ratios:
            return 1.0, 1.0
        steps, ends = zip(*ratios, strict=True)
        return statistics.median(steps), statistics.median(ends)


class Timed:
    """One image under a budget: measures the machine if that was not done, plans, runs, tells.

    Args:
        runner: Of the network.
        encoded: The image.
        options: With `seconds`.
        output: (height, width) of the original image.
        since: When the time began to run, by the budget's clock.
        starts: Boxes to begin with.
    """

    def __init__(
        self,
        runner: Runner,
        encoded: Encoded,
        options: Options,
        output: Size,
        since: float,
        starts: Sequence[Start] = (),
    ) -> None:
        assert options.seconds is not None
        self.runner, self.encoded, self.output, self.starts = runner, encoded, output, starts
        self.budget, self.clock = runner.budget, runner.budget.clock
        self.asked, self.notes = options.seconds, list[str]()
        plain = runner.launch is direct
        self.key = key_of(runner.network, encoded, options, output, plain=plain)
        costs = self.budget.kept(self.key)
        if costs is None:
            begin = self.clock()
            costs = measured(runner.pipeline, encoded, options, output, self.clock)
            self.budget.keep(self.key, costs)
            took = self.clock() - begin
            since += took
            self.notes.append(f"this machine was measured first, which took {took:.1f} s more")
        self.costs, self.since = costs, since
        left = since + AIM * self.asked - self.clock()
        least = max(map(len, starts), default=0)
        tried: Sequence[int] = range(FEWEST, MOST + 1, GRAIN) if plain else PROBES
        if plain:  # else only what was recorded is quick
            tried = sorted({*tried, *self.budget.front.proposals(options.kind, MOST)})
        sizes = [size for size in tried if size >= least] or [least]
        self.plan = planned(costs, self.budget.front, options, left, sizes)
        self.elastic = "steps" in options.free
        most = self.plan.steps
        if self.elastic and self.plan.fits and options.kind == "search":  # steps are all alike
            most = longest(self.budget.front, options, self.plan)
        chosen = {"steps": most, "proposals": self.plan.proposals}
        self.pipeline: Pipeline = runner.pipeline(options.model_copy(update=chosen))
        self._took: list[float] = []

    def steps(self) -> Iterator[Step]:
        """The steps that the clock allows, one at least."""
        options = self.pipeline.options
        noise = self.runner.noise([options.seed], options)
        running = self.pipeline.run(self.encoded, noise, self.starts, [self.output])
        while True:
            begin = self.clock()
            step = next(running, None)
            if step is None:
                return
            now = self.clock()
            self._took.append(now - begin)
            yield step
            if self.elastic and not self._another_fits(step.index + 2):
                return

    def _another_fits(self, steps: int) -> bool:
        end = self.costs.of_end(np.array([float(steps * self.plan.proposals)]))[0]
        due = self.since + LATE * self.asked
        return bool(self.clock() + statistics.median(self._took[-3:]) + end <= due)

    def results(self, *, every: bool) -> Iterator[Instances]:
        """The instances after each step, or after the last one alone; `meta` tells of the time."""
        for step in self.steps():
            if every:
                yield self._told(step)
        if not every:
            yield self._told(step)

    def _told(self, step: Step) -> Instances:
        begin = self.clock()
        found = self.pipeline.result(step, self.encoded, 0, self.output)
        now = self.clock()
        base, count = self.budget.base(self.key), np.array([float(self.plan.proposals)])
        forecast = float(base.of_step(count)[0]), float(base.of_end(count * (step.index + 1))[0])
        actual = statistics.fmean(self._took), now - begin
        self.budget.learn(self.key, *map(_ratio, actual, forecast))
        assert isinstance(found.meta, Meta)
        took, notes = now - self.since, list(self.notes)
        if not self.plan.fits and took > self.asked:
            notes.append(_too_short(self.asked, self.plan))
        note = "; ".join(notes)
        return replace(found, meta=replace(found.meta, seconds=took, asked=self.asked, note=note))


def _ratio(actual: float, forecast: float) -> float:
    return actual / forecast if actual > 0 and forecast > 0 else 1.0


def _too_short(asked: float, plan: Plan) -> str:
    steps = f"{plan.steps} step" + "s" * (plan.steps != 1)
    return f"{asked:g} s does not fit {steps}: the fastest was run, with {plan.proposals} proposals"
