"""Pictures in a folder that cannot be read at first."""

import pyarrow as pa


class Shaky:
    """Pictures by their names, each of which cannot be read so many times; what there is not never can."""

    contents, fingerprint = "path", "0"

    def __init__(self, folder, names, times=1):
        self._folder, self._names, self._times = folder, names, times
        self.rows, self.seen = len(names), []

    def ids(self):
        return pa.array(self._names)

    def read(self, first, last):
        return pa.RecordBatch.from_pydict({"id": self._names[first:last], "path": self._names[first:last]})

    def opened(self, name):
        self.seen.append(name)
        if self.seen.count(name) <= self._times or not (self._folder / name).exists():
            raise OSError("away")
        return str(self._folder / name)
