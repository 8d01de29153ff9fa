"""Timber of the U.S. Forest Service: 60,758 bids in 16,469 first-price sealed-bid auctions, 1973 to 1993.

Source. Forest Service sale records as prepared by P. A. Haile; here the file of the Python package ``simple_fpa`` 1.8 (P.
Andreyanov and G. Franguridi), which they use in "Nonparametric inference on counterfactuals in sealed first-price auctions"
(arXiv 2106.13856). It comes with ``pip install 'walras[datasets]'``. How the auctions were selected is not said there.

Licence. The package is MIT; the data state none (they are records of a federal agency).

| column          | is                                                                                 | unit                |
|-----------------|------------------------------------------------------------------------------------|---------------------|
| auction (index) | number of the auction in the file (auctionid), from 0                              |                     |
| bidder (index)  | place of the bid among those of its auction, from 1: it does not identify a firm   |                     |
| bid             | bid for the whole tract (actual_bid)                                               | cent                |
| advertised      | advertised value, the least bid accepted, for the whole tract (adv_value)          | cent                |
| volume          | timber estimated to be on the tract (volume_total_1)                               | thousand board feet |
| concentration   | Herfindahl index (hhi), of the species' shares of the tract                        | 1                   |
| year            | year of the sale, less 1900                                                        | year                |
| state           | state of the forest, such as 6 for California, 28 for Mississippi, 41 for Oregon   | FIPS code           |
| forest          | national forest, numbered within a region that the file does not give              | number              |

The package gives no units or meanings: these are inferred. Cents and thousands of board feet make the median advertised
price 68 USD, and the median highest bid 108 USD, per thousand board feet; in dollars it would be a hundredfold. The index is
not of the bids, since in 3,045 auctions it is below one over their number, and it is 1 in 1,899. One auction each is coded 3
and 60, which are no states. Nothing is missing. The number of bidders is the number of rows of an auction, 2 to 9: sales
that drew one bid or none are not here. The first bidder is the highest in all but 261 auctions.

*Nine means nine or more.* The lowest bid of an auction is typically 8 to 11 % above the advertised value at 2 to 8
bidders, and 35 % above it at 9; there are also more auctions of 9 than of 8. So at 9 the lowest bids seem to have been cut
off and the number of bidders is unknown: leave those auctions out wherever that number matters.

| bidders                              | 2     | 3     | 4     | 5     | 6     | 7    | 8    | 9    |
|--------------------------------------|-------|-------|-------|-------|-------|------|------|------|
| auctions                             | 5,164 | 4,159 | 2,778 | 1,894 | 1,095 | 637  | 336  | 406  |
| median of bid / advertised           | 1.16  | 1.22  | 1.28  | 1.34  | 1.39  | 1.43 | 1.51 | 1.92 |
| median of the lowest, likewise       | 1.08  | 1.08  | 1.09  | 1.10  | 1.11  | 1.10 | 1.11 | 1.35 |
| intraclass correlation of its log, * | 0.61  | 0.65  | 0.65  | 0.65  | 0.72  | 0.72 | 0.71 | 0.83 |

(*) without the absurd auctions of below; from the one-way analysis of variance. Three fifths and more of the variance of
the log ratio is common to the bids of an auction: what moves them together is not private.

*The advertised value binds.* It is a total, not a price per unit: the slope of log bid on its log alone is 0.93. Of the bids
404 (0.7 %) are below it, 670 (1.1 %) equal it to the cent, and 2,393 are less than 1 % above it; the density is highest there
and falls from then on. Of the 404, 150 are below half of it and 160 within a tenth. So the values that produce bids are
truncated at the advertised value, and the number of bidders counts those above it. Some of the literature takes it as not
binding nevertheless, because it is set low.

*Absurd rows*, left as they are:

| what                                                                                        | bids | auctions |
|---------------------------------------------------------------------------------------------|------|----------|
| bid below 0.05 of the advertised value, most near 0.01 to 0.02 as if in dollars             | 51   | 20       |
| bid above 100 times it, 8 of the auctions in Wisconsin in 1986 as if it were per unit there | 27   | 12       |
| volume of a billion board feet, as if in board feet (auction 11023)                         | 7    | 1        |
| auctions that repeat an earlier one in all columns and bids, 11 of them in Alaska           | 84   | 32       |

Ten auctions have bids above 1,000 times the advertised value; the largest bid is three billion dollars, in auction 7203.

To leave out the auctions with a bid below 0.9 or above 20 times the advertised value (133 and 68, together 838 bids;
59,920 bids in 16,268 auctions remain, their median ratios within 0.02 of those above), and those of nine:

    ratio, groups = frame["bid"] / frame["advertised"], frame.groupby("auction")
    frame = frame[ratio.between(0.9, 20).groupby("auction").transform("all") & (groups["bid"].transform("size") < 9)]

Even then the highest bid is more than three times the second in 100 auctions of 2 to 9, against a median of 1.09.

Results. Log bid on logs of advertised value, volume and number of bidders, standard errors clustered by auction in brackets:

|                                    | advertised    | volume        | bidders       | R²   |
|------------------------------------|---------------|---------------|---------------|------|
| all 60,758 bids                    | 0.770 (0.007) | 0.219 (0.008) | 0.281 (0.009) | 0.92 |
| without the absurd, 59,920 bids    | 0.805 (0.004) | 0.187 (0.005) | 0.271 (0.007) | 0.94 |

Other samples of these sales, with bids of both sealed and open auctions, are in Haile (American Economic Review 91, 2001: the
prospect of resale raises bids), Haile, Hong and Shum (NBER 10105, 2003: little evidence of common values), Lu and Perrigne
(Journal of Applied Econometrics 23, 2008) and Campo, Guerre, Perrigne and Vuong (Review of Economic Studies 78, 2011), who
estimate bidders' risk aversion, and Aradillas-López, Gandhi and Quint (Econometrica 81, 2013: correlated values in open ones).
"""

import pandas as pd

from walras.data.entry import Entry
from walras.data.packages import packaged

COLUMNS = {
    "auctionid": "auction",
    "actual_bid": "bid",
    "adv_value": "advertised",
    "volume_total_1": "volume",
    "hhi": "concentration",
    "year": "year",
    "state": "state",
    "forest": "forest",
}


def _table() -> pd.DataFrame:
    # by path: importing simple_fpa imports statsmodels, seaborn and numba, which it does not require
    bids = pd.read_csv(packaged("simple_fpa/data/haile_data.csv", name=ENTRY.name), usecols=list(COLUMNS))
    bids = bids[list(COLUMNS)].rename(columns=COLUMNS)
    return bids.assign(bidder=bids.groupby("auction").cumcount() + 1)  # the file has all first bids, then all second, …


ENTRY = Entry(
    name="timber",
    form="bids",
    rows=60_758,
    units={
        "bid": "cent",
        "advertised": "cent",
        "volume": "thousand board feet",
        "concentration": "1",
        "year": "year",
        "state": "FIPS code",
        "forest": "number",
    },
    source="U.S. Forest Service, prepared by P. A. Haile; package simple_fpa, file haile_data.csv",
    licence="package MIT; the data state none",
    summary="Bids in 16,469 sealed-bid auctions of timber from national forests, 1973-93",
    description=__doc__ or "",
    table=_table,
    notes="Units are inferred. Bids below the advertised value, which binds, are mistakes or exceptions, and some others are "
    "absurd: the description says which and how to leave them out. Nine bidders means nine or more.",
)
