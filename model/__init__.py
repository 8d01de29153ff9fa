"""Market equilibria as differentiable functions of their economic parameters."""

from walras.model.auctions.affiliated import AffiliatedEquilibrium, AffiliatedFirstPriceAuction
from walras.model.auctions.all_pay import AllPayAuction, AllPayEquilibrium
from walras.model.auctions.asymmetric import AsymmetricEquilibrium, AsymmetricFirstPriceAuction
from walras.model.auctions.first_price import FirstPriceAuction, FirstPriceEquilibrium
from walras.model.auctions.game.auction import SmoothedAuction
from walras.model.auctions.game.estimators import Evolution, FirstOrder, Reinforce
from walras.model.auctions.game.evaluation import Evaluation, GradientVariance, evaluate_bids, gradient_variance
from walras.model.auctions.game.learning import Learned, LearningProgress, learn
from walras.model.auctions.game.pictures import plot_learning
from walras.model.auctions.game.smoothing import (
    choose_smoothing,
    sampled_smoothing_error,
    smallest_slope,
    smoothing_error,
    smoothing_error_bound,
    smoothing_error_estimate,
)
from walras.model.auctions.procurement import ProcurementAuction, ProcurementEquilibrium
from walras.model.auctions.second_price import SecondPriceAuction, SecondPriceEquilibrium
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
from walras.model.supply import RandomSupply
from walras.model.trading_costs.equilibrium import Simulation, TradingEquilibrium
from walras.model.trading_costs.generative.solver import GenerativeEquilibrium, Surrogate, solve_generative, train_surrogate
from walras.model.trading_costs.generative.training import Training, TrainingProgress
from walras.model.trading_costs.market import TradingCosts
from walras.model.trading_costs.stationary import StationaryTrading
from walras.model.verification import DeviationGain, Verification, verify

__all__ = [
    "AffiliatedEquilibrium",
    "AffiliatedFirstPriceAuction",
    "AffineEquilibrium",
    "Agents",
    "AllPayAuction",
    "AllPayEquilibrium",
    "AsymmetricEquilibrium",
    "AsymmetricFirstPriceAuction",
    "Barrier",
    "ClosedForm",
    "DeviationGain",
    "Diffusion",
    "DoubleWell",
    "EquilibriumError",
    "Evaluation",
    "Evolution",
    "FirstOrder",
    "FirstPriceAuction",
    "FirstPriceEquilibrium",
    "GenerativeEquilibrium",
    "GradientVariance",
    "Learned",
    "LearningProgress",
    "LinearDemand",
    "PathEquilibrium",
    "PriceFormation",
    "ProcurementAuction",
    "ProcurementEquilibrium",
    "Quadratic",
    "RandomSupply",
    "Reinforce",
    "SecondPriceAuction",
    "SecondPriceEquilibrium",
    "Simulation",
    "SmoothedAuction",
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
    "choose_smoothing",
    "density",
    "evaluate_bids",
    "expected_costs",
    "gradient_variance",
    "learn",
    "plot_costs",
    "plot_density",
    "plot_learning",
    "plot_paths",
    "plot_price",
    "sample_paths",
    "sampled_smoothing_error",
    "smallest_slope",
    "smoothing_error",
    "smoothing_error_bound",
    "smoothing_error_estimate",
    "solve_generative",
    "train_surrogate",
    "verify",
]
