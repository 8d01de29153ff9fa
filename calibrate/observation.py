"""What a family of markets must say of its data: the seam between equilibria and inference."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import pandas as pd

from walras.calibrate.law import Law
from walras.calibrate.predictions.intervention import Intervention, World, described
from walras.calibrate.prior import Parameter

type Inputs = Mapping[str, Any]
type Parameters = Mapping[str, Any]


class Observation(ABC):
    """How a table of data is seen through an equilibrium. Subclasses are frozen dataclasses of plain options.

    `Problem`, `fit`, `check` and everything after them know a family by these methods alone.
    """

    targets: ClassVar[tuple[str, ...]]  # the columns that the law describes; scores are of the first

    def standardised(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The data as every other method wants them, validated; a `Problem` calls this once. As they are by default."""
        return frame

    @abstractmethod
    def inputs(self, frame: pd.DataFrame) -> dict[str, np.ndarray]:
        """The arrays that the market and the law take as given. Raises `CalibrationError` for unusable data."""

    @abstractmethod
    def observed(self, frame: pd.DataFrame) -> np.ndarray:
        """The observations (rows, targets); NaN is missing."""

    @abstractmethod
    def law(self, equilibrium, params: Parameters, inputs: Inputs) -> Law:
        """The law of the observations."""

    @property
    def covariates(self) -> tuple[str, ...]:
        """The columns that the law takes as given in every row, known in advance of the targets."""
        return ()

    @property
    def foresees(self) -> bool:
        """Whether the law of a row uses what was seen in later ones, such as supply that agents foresee."""
        return False

    @property
    def remedies(self) -> Mapping[str, str]:
        """What helps where the errors of a fit have the wrong "calibration", a "correlation" or a changing "volatility", or
        where replications lack a "statistic" of the data; general words stand for what is not given.
        """
        return {}

    def parameters(self, frame: pd.DataFrame) -> dict[str, Parameter]:
        """The observation's own parameters, such as a noise scale, with their defaults."""
        return {}

    def ridge(self, name: str, params: Parameters, inputs: Inputs) -> Any | None:
        """How far the parameters sampled before `name` shift the values of `name` that fit the data; None if unknown.

        In the unconstrained coordinate of `name` (NumPyro's `biject_to`), relative to which a sampler then moves: this
        changes how it steps, never what it samples.
        """
        return None

    def adapted(self, market: Any) -> Any:
        """The market, a registered one or a function, as this observation wants it; as it is by default."""
        return market

    def drawn_around(self, params: Parameters, priors: Mapping[str, Any], inputs: Inputs) -> Parameters:
        """Parameters completed by what is drawn around them, given their priors (NumPyro statements); none by default."""
        return params

    def padded(self, several: Sequence[tuple[Inputs, np.ndarray]]) -> list[tuple[Inputs, np.ndarray]]:
        """Inputs and observations of several markets, the short ones lengthened by rows that change nothing of the others.

        Such rows come last and have no observation. As they are by default: markets of different lengths are computed apart.
        """
        return list(several)

    def latents(self, params: Parameters, inputs: Inputs) -> Inputs:
        """Inputs completed by what is sampled beside the parameters (NumPyro statements); as they are by default."""
        return inputs

    def integrated(self, params: Parameters, inputs: Inputs, solve: Callable[[Inputs], Any]) -> Inputs:
        """As `latents`, for a market whose prices are affine in its inputs: their law may integrate what is hidden.

        `solve(inputs)` is the equilibrium. Inputs that hold how prices respond to a hidden path spare sampling the path.
        """
        return self.latents(params, inputs)

    def quantities(self, equilibrium, params: Parameters, inputs: Inputs) -> dict[str, Any]:
        """Named quantities of interest (such as an elasticity), reported beside the parameters."""
        return {}

    def outputs(self, equilibrium, params: Parameters, inputs: Inputs) -> dict[str, Any]:
        """What a sensitivity analysis explains, by name: numbers, or arrays along rows or steps.

        By default the quantities, and the mean and path of the equilibrium's price where it has one.
        """
        found = dict(self.quantities(equilibrium, params, inputs))
        if hasattr(equilibrium, "price"):
            found["mean_price"] = jnp.mean(equilibrium.price)
            if jnp.ndim(equilibrium.price) == 1:
                found["price"] = equilibrium.price
        return found

    @property
    def levers(self) -> tuple[str, ...]:
        """The columns that a scenario can change, beside parameters; `counterfactual` takes account of them."""
        return ()

    def counterfactual(self, params: Parameters, inputs: Inputs, intervention: Intervention, solve: Callable) -> World:
        """The world in which an intervention holds; of one that changes nothing, the world as it is.

        `params` are those of the market's `Structure`, `inputs` are complete, `solve(params, inputs)` is the equilibrium. What
        an intervention does not name is as it was: inputs are not centred anew, and no other parameter moves.
        """
        params = intervention.parameters(params)
        equilibrium = solve(params, inputs)
        return World(params, inputs, equilibrium, self.law(equilibrium, params, inputs))

    def outcomes(self, world: World, table) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a scenario reports of a world and its table (rows, targets): series (rows,) and numbers, by name."""
        series, figures = described(self.targets, table)
        return series, {**figures, **self.quantities(world.equilibrium, world.params, world.inputs)}

    def statistics(self, tables: np.ndarray, inputs: Inputs) -> dict[str, np.ndarray]:
        """Statistics of whole tables (…, rows, targets), NaN where nothing is observed, that a fit should reproduce: (…).

        Beside those of each target that a report compares anyway.
        """
        return {}

    def story(self, problem, tree) -> list[tuple]:
        """Sections of a report that are this family's own, each `(heading, body)` or `(heading, body, figure)`."""
        return []

    def notes(self, frame: pd.DataFrame) -> list[str]:
        """Sentences that a reader of the results must know."""
        return []

    def coordinates(self, frame: pd.DataFrame) -> dict[str, list]:
        """Names along the dimensions of vector parameters."""
        return {}

    def dimensions(self) -> dict[str, list[str]]:
        """The dimensions of vector parameters and latents."""
        return {}
