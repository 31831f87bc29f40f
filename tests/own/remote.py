"""A backend whose memory the host cannot touch: it records each launch and runs reference kernels, for the tests."""

from contextlib import nullcontext

import numpy as np

from refimpl.backends.backend import Host
from refimpl.compiler.lower import reference


class Remote:
    """An array on the other side: it has a shape and can be seen under another one, but NumPy cannot read it."""

    __array_ufunc__ = None

    def __init__(self, values):
        self._values = values
        self.shape, self.dtype, self.nbytes = values.shape, values.dtype, values.nbytes

    def reshape(self, *shape):
        return Remote(self._values.reshape(*shape))

    def __getitem__(self, index):
        return Remote(self._values[index])

    def __array__(self, *args, **named):
        raise TypeError("the host cannot read this array: it belongs to a backend")


class Recording:
    """The backend."""

    ahead = 1

    def __init__(self):
        self.launched, self.copied, self.waited, self._host = [], [], 0, Host()

    def lower(self, step, threads):
        return {section: [reference(call) for call in calls] for section, calls in step.calls.items()}

    def allocate(self, nbytes):
        return Remote(self._host.allocate(nbytes))

    def adopt(self, array):
        return Remote(array.copy())

    def gather(self, arrays):
        return None, [self.adopt(array) for array in arrays]

    def view(self, memory, start, nbytes, dtype):
        return Remote(self._host.view(memory._values, start, nbytes, dtype))

    def write(self, array, values):
        self.copied.append(("in", array.shape))
        array._values[...] = values

    def read(self, array):
        self.copied.append(("out", array.shape))
        return array._values.copy()

    def finite(self, array):
        return bool(np.isfinite(array._values).all())

    def waiting(self, shape, dtype):
        return np.empty(shape, dtype)

    def copy(self, to, array):
        if isinstance(to, Remote):
            to._values[...] = array._values
        else:
            self.copied.append(("out", array.shape))
            to[...] = array._values

    def ready(self, launches, calls, threads):
        return [(launch.name, *call) for launch, call in zip(launches, calls, strict=True)]

    def launch(self, calls):
        for *name, function, args in calls:
            self.launched += name
            function(*(a._values if isinstance(a, Remote) else a for a in args))

    def synchronise(self):
        self.waited += 1

    def work(self, threads):
        return self._host.work(threads)

    def working(self, threads):
        return self._host.working(threads)

    def session(self):
        return nullcontext()


class Beside(Recording):
    """The same, as a device that runs beside the host: nothing happens before the host waits for it."""

    ahead = 4

    def __init__(self):
        super().__init__()
        self.queue = []

    def write(self, array, values):
        given = np.array(values)
        self.queue.append(lambda: Recording.write(self, array, given))

    def read(self, array):
        self.synchronise()
        return super().read(array)

    def finite(self, array):
        self.synchronise()
        return super().finite(array)

    def copy(self, to, array):
        if not isinstance(to, Remote):
            to.fill(99)  # who looks too soon sees that
        self.queue.append(lambda: Recording.copy(self, to, array))

    def launch(self, calls):
        self.queue.append(lambda: Recording.launch(self, calls))

    def synchronise(self):
        super().synchronise()
        queue, self.queue = self.queue, []
        for queued in queue:
            queued()
