"""What replicated price series should have in common with the observed one: volatility, memory, extremes, asymmetry."""

import numpy as np
from jaxtyping import Float, Int

_FEWEST = 10  # pairs of rows that a correlation, or a skewness, is found from


def price_statistics(
    price: Float[np.ndarray, "*tables rows"], segment: Int[np.ndarray, " rows"]
) -> dict[str, Float[np.ndarray, "*tables"]]:
    """Statistics of price series; changes and lags are those between rows of one segment (such as a day) alone.

    Rows without a price are left out; a statistic that has too few is NaN.
    """
    change = np.where(segment[1:] == segment[:-1], np.diff(price, axis=-1), np.nan)
    spread, asymmetry = _moments(change)
    return {
        "volatility of price changes": spread,
        "skewness of price changes": asymmetry,
        "largest rise of price in a row": np.max(change, axis=-1, where=np.isfinite(change), initial=-np.inf),
        "largest fall of price in a row": np.max(-change, axis=-1, where=np.isfinite(change), initial=-np.inf),
        "highest price": np.max(price, axis=-1, where=np.isfinite(price), initial=-np.inf),
        "lowest price": np.min(price, axis=-1, where=np.isfinite(price), initial=np.inf),
        "autocorrelation of price, 1 row": _autocorrelation(price, segment, 1),
        "autocorrelation of price, 5 rows": _autocorrelation(price, segment, 5),
    }


def _moments(values) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviation and skewness over the last axis, leaving out NaN."""
    known = np.isfinite(values)
    count = np.where(known.sum(-1) >= _FEWEST, known.sum(-1), np.nan)
    mean = np.where(known, values, 0.0).sum(-1) / count
    deviation = np.where(known, values - mean[..., None], 0.0)
    variance = (deviation**2).sum(-1) / count
    return np.sqrt(variance), (deviation**3).sum(-1) / count / np.where(variance > 0, variance, np.nan) ** 1.5


def _autocorrelation(price, segment, lag) -> np.ndarray:
    known = np.isfinite(price)
    mean = np.where(known, price, 0.0).sum(-1) / np.maximum(known.sum(-1), 1)
    deviation = np.where(known, price - mean[..., None], 0.0)
    pairs = known[..., lag:] & known[..., :-lag] & (segment[lag:] == segment[:-lag])
    covariance = (deviation[..., lag:] * deviation[..., :-lag] * pairs).sum(-1) / np.maximum(pairs.sum(-1), 1)
    variance = (deviation**2).sum(-1) / np.maximum(known.sum(-1), 1)
    return np.where((pairs.sum(-1) >= _FEWEST) & (variance > 0), covariance / np.where(variance > 0, variance, 1.0), np.nan)
