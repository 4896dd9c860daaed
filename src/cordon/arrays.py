"""NumPy arrays by the type of their numbers, for annotations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Indices = NDArray[np.intp]
Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
