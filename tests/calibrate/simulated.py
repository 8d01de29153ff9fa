"""Small price series for the tests of walras.calibrate."""

import numpy as np
import pandas as pd

from walras.data import standard


def series(rows=12, seed=0, times=None, missing=(), **columns) -> pd.DataFrame:
    """A standard series of white noise: `price`, `supply` and two drivers; `columns` replace them."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "time": np.arange(rows) if times is None else times,
            "price": 1.3 + 0.4 * rng.normal(size=rows),
            "supply": 2.2 + 1.5 * rng.normal(size=rows),
            "storm": rng.normal(size=rows),
            "holiday": (rng.uniform(size=rows) < 0.4).astype(float),
        }
    ).assign(**columns)
    for column, row in missing:
        frame.loc[row, column] = np.nan
    return standard(frame, form="series", units={"price": "USD/lb", "supply": "lb/day"})
