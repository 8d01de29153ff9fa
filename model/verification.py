"""One certificate for all markets: whether anybody gains by leaving an equilibrium."""

from functools import singledispatch
from typing import Any

from walras.model.auctions.affiliated import AffiliatedFirstPriceAuction
from walras.model.auctions.all_pay import AllPayAuction
from walras.model.auctions.asymmetric import AsymmetricFirstPriceAuction
from walras.model.auctions.first_price import FirstPriceAuction
from walras.model.auctions.procurement import ProcurementAuction
from walras.model.auctions.second_price import SecondPriceAuction
from walras.model.auctions.verification import DeviationGain, verify_auction
from walras.model.price_formation.verification import Verification
from walras.model.price_formation.verification import verify as verify_price

__all__ = ["DeviationGain", "Verification", "verify"]


@singledispatch
def verify(market: Any, equilibrium: Any, *, indifference: float = 1e-4, tolerance: float = 2e-5) -> Any:
    """Recompute best responses to an equilibrium, sharing nothing with the solvers.

    For `PriceFormation` (and markets like it): a `Verification`, by agents' global best responses to the price along a foreseen
    supply path. `equilibrium`: of `PriceFormation.solve`, judged on the `substeps` of its solve; or anything with `horizon`,
    `supply`, `price` (the means over equal steps), `initial`, `weights` and `strategy()`. `indifference`: without noise, agents
    accept responses whose cost is within this part of c L²/T of their best, L being the range of best responses around the
    mean position. `tolerance`: with noise, resolutions are added until `accuracy` is below this part of
    max |Q| + σ/√T + (the range of the initial positions)/T.

    For an auction: a `DeviationGain`, by a search for the best bids against rivals who follow the equilibrium. `equilibrium`:
    anything with `bid(value)`, or `bid(group, value)` for groups. Neither `indifference` nor `tolerance` matters.

    Raises `EquilibriumError` for several assets, for arrays that do not fit or are not finite, and if agents' best responses
    leave every bounded set.
    """
    return verify_price(market, equilibrium, indifference=indifference, tolerance=tolerance)


@verify.register(FirstPriceAuction)
@verify.register(ProcurementAuction)
@verify.register(SecondPriceAuction)
@verify.register(AllPayAuction)
@verify.register(AffiliatedFirstPriceAuction)
@verify.register(AsymmetricFirstPriceAuction)
def _(market, equilibrium, *, indifference: float = 1e-4, tolerance: float = 2e-5) -> DeviationGain:
    return verify_auction(market, equilibrium)
