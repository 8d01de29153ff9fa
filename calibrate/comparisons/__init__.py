"""How well fits predict, beside each other and beside forecasts that know no economics."""
