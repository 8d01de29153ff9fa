"""Market equilibria as differentiable functions of their economic parameters."""

from walras.model.costs import Quadratic
from walras.model.equilibrium import EquilibriumError, Status
from walras.model.price_formation.foreseen import PathEquilibrium
from walras.model.price_formation.market import PriceFormation
from walras.model.price_formation.random_supply import AffineEquilibrium
from walras.model.price_formation.stationary import LinearDemand, StationaryEquilibrium, StationaryMarket
from walras.model.supply import RandomSupply

__all__ = [
    "AffineEquilibrium",
    "EquilibriumError",
    "LinearDemand",
    "PathEquilibrium",
    "PriceFormation",
    "Quadratic",
    "RandomSupply",
    "StationaryEquilibrium",
    "StationaryMarket",
    "Status",
]
