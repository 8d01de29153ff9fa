"""Market equilibria as differentiable functions of their economic parameters."""

from walras.model.costs import Barrier, DoubleWell, Quadratic
from walras.model.equilibrium import EquilibriumError, Status
from walras.model.price_formation.agents import Agents
from walras.model.price_formation.diffusion import Diffusion
from walras.model.price_formation.foreseen import ClosedForm
from walras.model.price_formation.game import PathEquilibrium
from walras.model.price_formation.market import PriceFormation
from walras.model.price_formation.pictures import plot_costs, plot_density, plot_paths, plot_price
from walras.model.price_formation.population import density, expected_costs, sample_paths
from walras.model.price_formation.random_supply import AffineEquilibrium
from walras.model.price_formation.stationary import LinearDemand, StationaryEquilibrium, StationaryMarket
from walras.model.price_formation.vanishing_noise import VanishingNoise
from walras.model.price_formation.verification import Verification, verify
from walras.model.supply import RandomSupply
from walras.model.trading_costs.equilibrium import Simulation, TradingEquilibrium
from walras.model.trading_costs.generative.solver import GenerativeEquilibrium, Surrogate, solve_generative, train_surrogate
from walras.model.trading_costs.generative.training import Training, TrainingProgress
from walras.model.trading_costs.market import TradingCosts
from walras.model.trading_costs.stationary import StationaryTrading

__all__ = [
    "AffineEquilibrium",
    "Agents",
    "Barrier",
    "ClosedForm",
    "Diffusion",
    "DoubleWell",
    "EquilibriumError",
    "GenerativeEquilibrium",
    "LinearDemand",
    "PathEquilibrium",
    "PriceFormation",
    "Quadratic",
    "RandomSupply",
    "Simulation",
    "StationaryEquilibrium",
    "StationaryMarket",
    "StationaryTrading",
    "Status",
    "Surrogate",
    "TradingCosts",
    "TradingEquilibrium",
    "Training",
    "TrainingProgress",
    "VanishingNoise",
    "Verification",
    "density",
    "expected_costs",
    "plot_costs",
    "plot_density",
    "plot_paths",
    "plot_price",
    "sample_paths",
    "solve_generative",
    "train_surrogate",
    "verify",
]
