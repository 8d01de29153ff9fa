"""Price formation by a continuum of agents who trade at a cost (Gomes–Saúde, arXiv 1807.07088).

Agents hold positions x, trade at rate α and minimise E ∫ [(c/2) α² + V(x) + ϖ α] dt + Ψ(x_T); the price ϖ clears the
market, E[α] = Q.

======  =================  ==========================================  ====================
symbol  code               meaning                                     unit
======  =================  ==========================================  ====================
ϖ       ``price``          equilibrium price                           money / unit
Q       ``supply``         net supply rate                             units / time
c       ``trading_cost``   cost of trading faster                      money · time / unit²
V       ``holding``        running cost of holding x                   money / time
Ψ       ``terminal``       cost of ending at x                         money
η, κ    ``holding``        strength and centre of a quadratic V        money / (unit² · time), units
γ, ζ    ``terminal``       strength and centre of a quadratic Ψ        money / unit², units
σ       ``noise``          agents' idiosyncratic noise                 units / √time
X̄       ``mean_position``  mean position, x̄₀ + ∫Q                      units
p̄       ``costate``        mean marginal value of the position         money / unit
r       ``discount``       agents' discount rate                       1 / time
δ       ``depreciation``   rate at which stocks decay                  1 / time
d₀, d₁  ``demand``         consumption d₀ − d₁ϖ                        units / time
======  =================  ==========================================  ====================
"""
