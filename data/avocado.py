"""Avocados in California: 169 weeks of retail price and quantity, January 2015 to March 2018.

Source. Scanner data of the Hass Avocado Board, compiled by J. Kiggins for Kaggle ("Avocado Prices", 2018). This is the
extract of N. Huntington-Klein, *The Effect* (2021), data set ``avocado`` of the Python package ``causaldata``:
conventional (not organic) Hass avocados in California. It comes with ``pip install 'walras[datasets]'``.

Licence. The package is MIT; the compilation is under the Open Database Licence; the board's own figures state none.

| column       | is                                                                                     | unit         |
|--------------|----------------------------------------------------------------------------------------|--------------|
| time (index) | Sunday that ends the week                                                              | date         |
| price        | mean price of an avocado sold that week, alone or in a bag, to the cent (AveragePrice) | USD/avocado  |
| supply       | avocados sold that week, those in bags counted singly (TotalVolume)                    | avocado/week |

The package gives no units: these are the board's. 169 rows, every Sunday from 4 January 2015 to 25 March 2018, none
missing or repeated; in the package the years ascend and the weeks of a year descend. That the Sunday ends its week is
inferred: the four largest quantities are dated on the four Sundays of the Super Bowl, which people shop for before.

The quantity is called ``supply`` since that is the column which calibrations observe; ``volume`` is for trades in a
thing that lasts, where what is bought can be sold again. It is a flow: units a week, time being counted in weeks.

Results. What is sold at the till answers to the price: it is not exogenous, and there is no instrument here (*The Effect*
uses these data in its chapter on identification). Log quantity on log price, conventional standard errors in brackets:

| demand elasticity, least squares |              |
|----------------------------------|--------------|
| levels, 169 weeks                | -0.68 (0.05) |
| differences, 168 changes         | -1.32 (0.07) |

The correlation of the changes of the two logs is -0.84. That of consecutive rows is 0.89 for the price and 0.53 for the
quantity; that of rows 52 weeks apart 0.36 and 0.55. The mean is 1.11 USD and 5.94 million avocados a week, the standard
deviation 0.23 and 1.16. A year's and half a year's wave with a linear trend explain 54 % of the variance of the log
price and 42 % of that of the log quantity; that trend is 9 % and 1 % a year.
"""

import pandas as pd

from walras.data.entry import Entry
from walras.data.packages import packaged


def _table() -> pd.DataFrame:
    # by path: importing causaldata imports statsmodels and forty other data sets
    weeks = pd.read_stata(packaged("causaldata/avocado/avocado.dta", name=ENTRY.name))
    return weeks.rename(columns={"Date": "time", "AveragePrice": "price", "TotalVolume": "supply"}).sort_values("time")


ENTRY = Entry(
    name="avocado",
    form="series",
    rows=169,
    units={"price": "USD/avocado", "supply": "avocado/week"},
    source="Hass Avocado Board, compiled by Kiggins (2018) for Kaggle; package causaldata, data set avocado",
    licence="package MIT; the compilation ODbL; the board's figures state none",
    summary="Weekly retail price and quantity of avocados in California, 2015-18",
    description=__doc__ or "",
    table=_table,
    time_unit="week",
    notes="Supply is the quantity sold at the till: it answers to the price, and peaks in the week before the Super Bowl.",
)
