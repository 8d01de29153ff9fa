"""Numbers as a reader wants them: a few significant digits, a proper minus sign, powers of ten."""

import math

import numpy as np

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value, digits: int = 3) -> str:
    """`value` to `digits` significant digits; whole numbers (int) in full; "–" for what is not a number."""
    if isinstance(value, int | np.integer):
        return f"{value:,}".replace("-", "−")
    value = float(value)
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if value == 0.0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if -4 < power < 6:
        text = f"{float(f'{mantissa}e{power}'):,.{max(digits - 1 - power, 0)}f}"
    else:
        text = f"{mantissa}×10{str(power).translate(_SUPERSCRIPT)}"
    return text.replace("-", "−")


def tick(value, _position=None) -> str:
    """A number for an axis: three significant digits without trailing zeros. Has the signature of a tick formatter."""
    text = number(value)
    mantissa, times, power = text.partition("×")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return power if mantissa == "1" and power else mantissa + times + power


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def listed(names) -> str:
    """Names as an enumeration: "a, b and c"."""
    names = list(names)
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else "none"
