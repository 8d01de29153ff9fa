"""Markets by name, so that a specification can be plain text. A new market is one entry here."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from walras.calibrate.errors import CalibrationError

_MARKETS = {
    "double_well": "walras.calibrate.price_formation.wells:DOUBLE_WELL",
    "first_price_auction": "walras.calibrate.auctions.market:FIRST_PRICE_AUCTION",
    "price_formation": "walras.calibrate.price_formation.markets:FORESEEN",
    "random_supply": "walras.calibrate.price_formation.markets:RANDOM_SUPPLY",
    "stationary": "walras.calibrate.price_formation.markets:STATIONARY",
    "trading_costs": "walras.calibrate.trading_costs.market:TRADING_COSTS",
    "trading_days": "walras.calibrate.price_formation.markets:TRADING_DAYS",
}


@dataclass(frozen=True)
class Structure:
    """A market's economic parameters, where its own are coordinates in which samplers move well.

    `of(params, inputs)`: the parameters with those that are coordinates replaced by what they stand for, which a scenario
    may change one at a time; `solve(structure, inputs)`: their equilibrium. The market's `build` is one after the other.
    """

    of: Callable
    solve: Callable


@dataclass(frozen=True)
class Market:
    """A named market: how to build its equilibrium, its parameters with defaults, and how it is observed.

    `build(params, inputs)` returns the equilibrium; `parameters(observation, frame)` the `Parameter` of each name;
    `observation` is the class that a specification's observation table fills. A `finite` market ends with its data and
    cannot be forecast; the prices of an `affine` one are affine in its inputs. Where `solver` is given, `build` takes a
    keyword `solver` too, chosen once from draws of the prior: `solver(solve_draws)` returns it, given a function that solves
    the draws with any solver and returns their equilibria along a leading dimension. `structure`: see `Structure`; without
    it a market's parameters are economic as they are.
    """

    name: str
    build: Callable
    parameters: Callable
    observation: type
    summary: str = ""
    finite: bool = False
    affine: bool = False
    solver: Callable | None = None
    structure: Structure | None = None


def market(name: str) -> Market:
    """The market registered under `name`, or at the import path `module:attribute`."""
    path = _MARKETS.get(name, name)
    if ":" not in path:
        close = get_close_matches(name, _MARKETS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "known are " + ", ".join(sorted(_MARKETS))
        raise CalibrationError(f"market {name!r} is not registered: {hint}, or give an import path module:attribute")
    module, attribute = path.split(":", 1)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise CalibrationError(f"market {name!r} cannot be imported ({error}): check the path") from error
    if not isinstance(found, Market):
        raise CalibrationError(f"market {name!r} is a {type(found).__name__}: it must be a walras.calibrate.Market")
    return found


def markets() -> list[str]:
    """The registered names."""
    return sorted(_MARKETS)
