"""The S&P 500 index: 5,031 trading days of its close and of shares traded, January 1999 to December 2018.

Source. Yahoo Finance, as the examples of the Python package ``arch`` (K. Sheppard) say of its data set ``sp500``. It comes
with ``pip install 'walras[datasets]'``.

Licence. The package is under the NCSA licence; the data state none.

| column       | is                                                                                     | unit        |
|--------------|----------------------------------------------------------------------------------------|-------------|
| time (index) | trading day in New York                                                                | date        |
| price        | the index at the close, without dividends (Close, which equals Adj Close in every row) | index point |
| volume       | shares traded that day, of stocks listed on the New York Stock Exchange (Volume)       | share/day   |

The package gives no units. 5,031 rows, 4 January 1999 to 31 December 2018, nothing missing or repeated and no volume
zero: every weekday but the exchange's holidays and the nine days it closed for attacks, a storm and three funerals.

Open, High and Low are left out: other columns of a series are drivers, which calibrations take as known in advance, and
these are not. Nor is Open an opening price at first: on 96 % of the days before 2006 it is the close of the day before.

What volume counts is inferred from its size: it is not the trade in the 500 members. In 2000 it is what was traded on the
exchange (its Fact Book has 262.5 billion shares in the year and 1.5608 on 15 December; here 260.7 and 1.5611). Around 18 March
2005 it rises by a quarter, and from then on is near the trade in the stocks listed there, wherever done (NYSE Group has 53.6
billion in March 2006, NYSE Euronext 6.3 a day in February 2009; here 50.9 and 6.6).

Some volumes are wrong by the look of them, and are left as they are:

| days                                                                                | million shares                    |
|-------------------------------------------------------------------------------------|-----------------------------------|
| 29 November 2000                                                                    | 402, beside 1,028 and 1,187       |
| 5 August 2008, 22 December 2010, seven of the days from 18 February to 2 March 2011 | 1,025 to 1,330, a third of usual  |
| 8 and 9 August 2011, of -6.9 % and 4.6 %                                            | 2,615 and 2,367, half of usual    |
| 12 days from 4 March to 10 May 2011                                                 | 4,223.74 each                     |
| 8 days from 2 May to 16 June 2011                                                   | 3,846.25 each                     |
| 6 days from 23 February to 14 September 2010                                        | 4,521.05 each                     |

Short sessions are not marked: that after Thanksgiving, in every year, trades less than the days beside it.

Time is counted in calendar days, a weekend being a gap of 3, while volume is that of a trading day. The variance of the
return over 3 days is 1.25 times that over 1, so trading days are nearer to the clock of this market. To count them:
``standard(frame.set_axis(range(len(frame))).rename_axis("time"), time_unit="day")``.

Results. The standard deviation of the daily log return is 0.0120 (5,030 returns, mean 0.0001, excess kurtosis 8.2), its
correlation with the next -0.07. The largest is 0.110, on 13 October 2008. Returns are large in clusters, and so is volume,
whose log is taken here less its mean over the 252 rows before, about a year (4,779 rows, standard deviation 0.22):

| correlation of rows apart by | 1    | 5    | 21   | 63   | 252  |
|------------------------------|------|------|------|------|------|
| size of the log return       | 0.24 | 0.33 | 0.24 | 0.14 | 0.05 |
| detrended log volume         | 0.64 | 0.40 | 0.22 | 0.23 | 0.26 |

Neither decays at one rate: 0.64 to the fifth power is 0.11. How long volume stays high depends on what is taken as its
trend; the last two trends use the whole sample, the others only the past:

| log volume less                       | correlation of consecutive rows | with the size of the log return |
|---------------------------------------|---------------------------------|---------------------------------|
| nothing                               | 0.95                            | 0.10                            |
| its mean over the 21 rows before      | 0.52                            | 0.17                            |
| its mean over the 63 rows before      | 0.56                            | 0.22                            |
| its mean over the 252 rows before     | 0.64                            | 0.31                            |
| its mean over the 504 rows before     | 0.74                            | 0.33                            |
| a straight line in the number of rows | 0.88                            | 0.32                            |
| a parabola in the number of rows      | 0.78                            | 0.39                            |

Short sessions and wrong volumes lower these: without the 81 rows below 0.6 of the median of the 21 rows around them, the
0.64 is 0.69 and the 0.31 is 0.35.
"""

import pandas as pd

from walras.data.entry import Entry
from walras.data.packages import packaged


def _table() -> pd.DataFrame:
    # by path: importing arch imports statsmodels
    days = pd.read_csv(packaged("arch/data/sp500/sp500.csv.gz", name=ENTRY.name), usecols=["Date", "Close", "Volume"])
    days["Date"] = pd.to_datetime(days["Date"], format="%m/%d/%Y")
    return days.rename(columns={"Date": "time", "Close": "price", "Volume": "volume"})


ENTRY = Entry(
    name="sp500",
    form="series",
    rows=5031,
    units={"price": "index point", "volume": "share/day"},
    source="Yahoo Finance; package arch, data set sp500",
    licence="package NCSA; the data state none",
    summary="Daily close of the S&P 500 and shares traded in New York, 1999-2018",
    description=__doc__ or "",
    table=_table,
    time_unit="day",
    notes="Time is counted in calendar days, weekends being gaps. Volume is that of stocks listed in New York, not of the "
    "500; it is counted more widely from March 2005 on, and some days of 2000, 2008, 2010 and 2011 are wrong.",
)
