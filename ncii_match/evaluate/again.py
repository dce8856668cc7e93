"""The pictures of a finished experiment once more: those that a page shows are read and altered again."""

import pyarrow as pa
import pyarrow.compute as pc

from ncii_match.errors import InputError
from ncii_match.evaluate.experiment import Experiment, trials_of
from ncii_match.evaluate.transforms import Altered, Pixels
from ncii_match.evaluate.trials import UNALTERED, read, seed_of


class Again:
    """Originals and copies of an experiment, by the pictures' ids.

    Where a picture stands among the stored ones follows from the order of the rows in ``trials/``, of which only ids
    and steps are read; of the pictures only the one asked for (its row group, where it is stored in one).
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._steps = {step.label: step for step in experiment.plan.steps}
        originals = [
            table.column("id").filter(pc.equal(table.column("step"), UNALTERED))
            for table in trials_of(experiment.out, ["id", "step"])
        ]
        self._ids = pa.chunked_array([chunk for one in originals for chunk in one.chunks], pa.string())
        self._last: tuple[str, Pixels] | None = None

    def original(self, name: str) -> Pixels:
        """The picture as it is stored, uint8 [h, w, 3] RGB. Keeps the last one.

        Raises
        ------
        InputError
            When no picture has this id, or another one stands in its place by now.
        DecodeError
            When it cannot be read.
        """
        if self._last is None or self._last[0] != name:
            self._last = name, self._read(name)
        return self._last[1]

    def copy(self, name: str, step: str) -> Altered:
        """The picture as a step (by its label; empty for none) altered it: pixels, or the bytes of a file.

        The same bytes as in the experiment. Raises as ``original``, and InputError for a step that was not evaluated.
        """
        if step == UNALTERED:
            return self.original(name)
        if step not in self._steps:
            raise InputError(f"the step {step!r} was not evaluated; those that were are in experiment.json")
        return self._steps[step].apply(self.original(name), seed_of(self._experiment.plan.seed, name))

    def _read(self, name: str) -> Pixels:
        places = pc.indices_nonzero(pc.equal(self._ids, name))
        if not len(places):
            raise InputError("no picture of this evaluation has the id asked for")
        row = int(places[0].as_py())
        [(found, source)] = self._experiment.pictures(row, row + 1)
        if found != name:
            raise InputError("another picture is stored where the one asked for was; evaluate again")
        return read(source, self._experiment.plan.limits)[1]
