"""Bayesian calibration of market equilibria: problems, fits, checks, predictions, comparisons and reports."""

# Imported before, ArviZ leaves a NumPyro that loads when first used; it must be whole before its submodules are imported.
from numpyro import __version__ as _  # noqa: F401

from walras.calibrate.auctions.bids import Bids
from walras.calibrate.auctions.counterfactuals import Revenue, revenue
from walras.calibrate.auctions.nonparametric import EstimatedValues, guerre_perrigne_vuong
from walras.calibrate.checks.checking import check
from walras.calibrate.comparisons.comparing import Comparison, compare
from walras.calibrate.errors import CalibrationError
from walras.calibrate.fitting import fit
from walras.calibrate.identifiability.identification import Identification, identify
from walras.calibrate.law import IndependentRows, Law
from walras.calibrate.observation import Observation
from walras.calibrate.panels.fitting import failures, fit_each
from walras.calibrate.panels.panel import Panel
from walras.calibrate.panels.pooled import Markets
from walras.calibrate.predictions.forecasting import Forecast, forecast_bands
from walras.calibrate.predictions.intervention import Change
from walras.calibrate.predictions.predictive import forecast, posterior_predictive, predictive_statistics, prior_predictive
from walras.calibrate.predictions.scenarios import Scenario, scenario
from walras.calibrate.price_formation.foreseen import ForeseenPrices
from walras.calibrate.price_formation.stochastic import StochasticPrices
from walras.calibrate.price_formation.trading_days import TradingDays
from walras.calibrate.prior import Parameter, Prior
from walras.calibrate.problem import Problem
from walras.calibrate.registry import Market, markets
from walras.calibrate.reporting import report
from walras.calibrate.samplers import MAP, NUTS, SMC, SVI, Laplace
from walras.calibrate.sensitivities.analysis import Sensitivity, sensitivity
from walras.calibrate.simulation_based.finding import SBC
from walras.calibrate.simulation_based.running import sbc
from walras.calibrate.trading_costs.volume import PriceAndVolume
from walras.calibrate.tree import load, priors, save

__all__ = [
    "MAP",
    "NUTS",
    "SBC",
    "SMC",
    "SVI",
    "Bids",
    "CalibrationError",
    "Change",
    "Comparison",
    "EstimatedValues",
    "Forecast",
    "ForeseenPrices",
    "Identification",
    "IndependentRows",
    "Laplace",
    "Law",
    "Market",
    "Markets",
    "Observation",
    "Panel",
    "Parameter",
    "PriceAndVolume",
    "Prior",
    "Problem",
    "Revenue",
    "Scenario",
    "Sensitivity",
    "StochasticPrices",
    "TradingDays",
    "check",
    "compare",
    "failures",
    "fit",
    "fit_each",
    "forecast",
    "forecast_bands",
    "guerre_perrigne_vuong",
    "identify",
    "load",
    "markets",
    "posterior_predictive",
    "predictive_statistics",
    "prior_predictive",
    "priors",
    "report",
    "revenue",
    "save",
    "sbc",
    "scenario",
    "sensitivity",
]
