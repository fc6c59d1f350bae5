"""Mean shapes of showers: where along the depth, and how far from the axis, the energy is deposited.

Electromagnetic: G. Grindhammer, S. Peters, *The parameterized simulation of electromagnetic showers in homogeneous and
sampling calorimeters*, 1993 (hep-ex/0001020), the formulas for homogeneous media, taken in radiation lengths of the
layers. Hadronic, along the depth: R. K. Bock et al., Nucl. Instrum. Meth. 186 (1981) 533.
"""

import math

import numpy as np

# Below, the formulas were not fitted, and their fluctuations grow beyond reason.
_LEAST_LOG_Y = 3.0  # of energy to critical energy
_LEAST_LOG_ENERGY = math.log(0.2)  # of the energy in GeV


def gamma_share(a, x):
    """Share of the gamma distribution of shape a > 0 and rate 1 that lies below x (regularised incomplete gamma)."""
    if x <= 0.0:
        return 0.0
    term = math.exp(a * math.log(x) - x - math.lgamma(a + 1.0))
    total, n = term, a
    while term > 1e-12 * total or n < x:
        n += 1.0
        term *= x / n
        total += term
        if total == 0.0:  # so far below or above that nothing can be told from 0 or 1
            return 0.0 if x < a else 1.0
    return min(total, 1.0)


def longitudinal(shape, rate, depths):
    """Share of a shower's energy in each layer, dE/dt ~ t^(shape - 1) exp(-rate t).

    Args:
      shape: a > 0; rate: b > 0, per unit of depth.
      depths: [L + 1] float64 from the shower's beginning to the layers' ends; those before it are negative.

    Returns:
      [L] float64; what is missing to 1 leaves at the back.
    """
    below = [gamma_share(shape, rate * float(depth)) for depth in depths]
    return np.maximum(np.diff(below), 0.0)  # the last digit may fall where all is deposited


def log_y(energy, absorber):
    """Logarithm of the energy (GeV) in critical energies of the absorber, 3 at least."""
    return max(_log(energy) - math.log(absorber.critical_energy), _LEAST_LOG_Y)


def electromagnetic(energy, absorber, first=0.0, second=0.0):
    """Depth of the maximum and shape of one electromagnetic shower.

    Args:
      energy: GeV.
      absorber: calorimeter.Material.
      first, second: independent N(0, 1) variates, which make the shower differ from the typical one.

    Returns:
      (maximum in radiation lengths from the beginning, shape): rate = (shape - 1) / maximum.
    """
    y = log_y(energy, absorber)
    correlation = 0.705 - 0.023 * y
    plus, minus = math.sqrt((1.0 + correlation) / 2.0) * first, math.sqrt((1.0 - correlation) / 2.0) * second
    maximum = (y - 0.812) * math.exp((plus + minus) / (-1.4 + 1.26 * y))
    shape = (0.81 + (0.458 + 2.26 / absorber.charge) * y) * math.exp((plus - minus) / (-0.58 + 0.86 * y))
    return maximum, max(shape, 1.1)


def radial(energy, absorber, tau):
    """Core and tail of an electromagnetic shower: f(r) = p 2 r C^2 / (r^2 + C^2)^2 + (1 - p) 2 r T^2 / (r^2 + T^2)^2.

    Args:
      energy: GeV.
      absorber: calorimeter.Material.
      tau: depth in units of that of the maximum.

    Returns:
      (C, T, p): the radii in Moliere radii, and the core's share of the energy.
    """
    log_energy = _log(energy)
    core = 0.0251 + 0.00319 * log_energy + (0.1162 - 0.000381 * absorber.charge) * tau
    growth = 0.3585 + 0.0421 * log_energy
    tail = 0.659 - 0.00309 * absorber.charge
    tail *= math.exp(-2.59 * (tau - 0.645)) + math.exp(min(growth * (tau - 0.645), 2.0))
    exponent = (0.401 + 0.00187 * absorber.charge - tau) / (1.313 - 0.0686 * log_energy)
    share = (2.632 - 0.00094 * absorber.charge) * math.exp(exponent - math.exp(exponent))
    return max(core, 0.01), tail, min(max(share, 0.0), 1.0)


def hadronic(energy):
    """Shape and rate per interaction length of the hadronic part, energy in GeV from 1 on."""
    log_energy = max(_log(energy), 0.0)
    return 0.6165 + 0.3183 * log_energy, 0.9099 - 0.0237 * log_energy


def _log(energy):
    return max(math.log(max(energy, 1e-300)), _LEAST_LOG_ENERGY)
