"""Calorimeter events: photon and pion showers and muon tracks in a sampling calorimeter, with their energies.

A simplified model, whose shapes are those of profiles.py: no magnetic field, showers along straight lines, sideways
spread by layer. What is measured is in units of a minimum-ionising particle (MIP): the mean signal that one leaves in
one layer. A layer's signal per GeV falls with its thickness, so depth has to be weighted to sum up to an energy.
"""

import math

import numpy as np

from data.synthetic import calorimeter, profiles
from data.synthetic.parts import count_of, uniform

CLASSES = ("photon", "pion", "muon")
ATTRIBUTES = ("energy",)  # GeV

# Signals against those of a minimum-ionising particle that deposits as much: of electrons (much of a soft photon's
# energy ends in the absorber), and of hadrons (part of it breaks up nuclei).
ELECTRON_SIGNAL, HADRON_SIGNAL = 0.8, 0.56
_SPOTS = (4, 50)  # into which a quantum of an electromagnetic and of a hadronic deposit spreads
_LANDAU_WIDTH = 0.15  # of a track's signal in one layer, MIP
_MOYAL_MEAN = 1.2703628  # Euler's constant + ln 2
_CONVERSION = 9.0 / 7.0  # radiation lengths, mean free path of a photon
_HADRON_RADIUS = 0.12  # interaction lengths
_PION_POWER, _FRACTION_SPREAD = 0.82, 12.0  # of the electromagnetic share of a pion's energy
_SOFTEST = 0.5  # GeV, of pile-up


def draw(rng, settings):
    """Draws one event.

    The number of particles is uniform in `count`; each is a photon, a pion or a muon with equal chances, of an energy
    uniform in its logarithm, and enters through the front with a slope; a share `near` of them near the one before.

    - A photon converts after Exp(9/7) radiation lengths. Depth of the maximum, shape and radii are those of
      `profiles`, the first two with their fluctuations.
    - A pion leaves a track up to its first interaction, after Exp(1) interaction lengths. A share of its energy, on
      average 1 - E^-0.18 (Gabriel et al. 1994) and widely fluctuating, is electromagnetic; that and the rest come as
      sub-showers, of which each begins deeper and in a direction of its own. The rest gives a smaller signal per GeV.
    - A muon leaves one MIP per layer on average, with the long tail of Landau's distribution (in Moyal's form, 1955).

    Deposits fluctuate by `stochastic` / sqrt(E) (Poisson); what leaves the calorimeter is lost. A voxel belongs to the
    particle that left most in it, if that is `threshold` MIP or more, and to nobody where pile-up left more. A
    particle that owns no voxel is not among the objects.

    Args and returns: as `data.synthetic.draw`. The image is float32, MIP per cell as `read_out` has it,
    with noise; the shape is (layers, cells, cells); attributes [N, 1] are the particles' true energies in GeV, of
    which a muon's signal tells nothing; the spacing along z is the mean of the layers'.

    Raises:
      InputError: the layers of the sections do not add up to the shape.
    """
    own = settings.showers
    layers = calorimeter.build(own.sections, own.cell, settings.shape[0])
    kinds, energies, deposits = [], [], []
    entry = None
    for _ in range(count_of(rng, settings.count)):
        kind, energy = int(rng.integers(len(CLASSES))), math.exp(uniform(rng, *map(math.log, own.energy)))
        entry = _entry(rng, own, layers, settings.shape, entry)
        slope = uniform(rng, -own.slope, own.slope, 2)
        deposits.append(_SHOWERS[CLASSES[kind]](rng, own, layers, settings.shape, energy, (0.0, entry, slope)))
        kinds.append(kind + 1)
        energies.append(energy)
    soft = _pile_up(rng, own, layers, settings.shape)
    owners, kept = owned(deposits, soft, own.threshold)
    image = sum(deposits, soft) + rng.standard_normal(settings.shape) * own.noise
    class_ids = np.array(kinds, np.int32)[kept]
    attributes = np.array(energies, np.float32)[kept][:, None]
    return read_out(image, own).astype(np.float32), owners, class_ids, attributes, layers.spacing()


def read_out(signal, own):
    """MIP per cell, an array of any shape -> what the image has; `own` is the section `data.synthetic.showers`."""
    return np.arcsinh(signal / own.threshold) if own.readout == "asinh" else signal


def measured(image, own):
    """MIP per cell of an image: the inverse of `read_out`."""
    return np.sinh(image) * own.threshold if own.readout == "asinh" else image


def owned(deposits, soft, threshold):
    """Which particle owns which voxel: the one that left most there, if that is enough.

    Args:
      deposits: N arrays [Z, Y, X] float64, MIP, one per particle.
      soft: [Z, Y, X] float64, MIP of nobody; where it is not exceeded, nobody owns the voxel.
      threshold: MIP that an owner left at least.

    Returns:
      [Z, Y, X] int32, 0 nobody, 1..M the particles that own something; and the indices [M] of these in `deposits`.
      Where two left the same, the first owns the voxel.
    """
    owners, most = np.zeros(soft.shape, np.int32), soft.copy()
    for number, left in enumerate(deposits, start=1):
        more = left > most
        owners[more] = number
        most[more] = left[more]
    owners[most < threshold] = 0
    present = np.bincount(owners.ravel(), minlength=len(deposits) + 1) > 0
    present[0] = False
    return np.where(present, np.cumsum(present), 0).astype(np.int32)[owners], np.flatnonzero(present) - 1


def photon(rng, own, layers, shape, energy, ray):
    """[Z, Y, X] float64 MIP that a photon leaves; `ray` is (position in layers, (y, x) mm there, slope (y, x))."""
    depth = layers.at(layers.radiation, ray[0]) + _CONVERSION * rng.standard_exponential()
    start = layers.position(layers.radiation, depth)
    return electromagnetic(rng, own, layers, shape, energy, _along(layers, ray, start))


def electromagnetic(rng, own, layers, shape, energy, ray):
    """[Z, Y, X] float64 MIP of a cascade that begins where the ray does; arguments as `photon`."""
    if ray[0] >= len(layers.absorbers):
        return np.zeros(shape)
    absorber = layers.absorbers[int(ray[0])]
    maximum, form = profiles.electromagnetic(energy, absorber, *rng.standard_normal(2))
    depths = layers.radiation - layers.at(layers.radiation, ray[0])
    share = profiles.longitudinal(form, (form - 1.0) / maximum, depths)
    middles = np.maximum((depths[1:] + depths[:-1]) / 2.0, 0.0)
    radii = [profiles.radial(energy, absorber, float(depth) / maximum) for depth in middles]
    core, tail, weight = (np.array(column) for column in zip(*radii, strict=True))
    quanta = rng.poisson(energy * share / own.stochastic[0] ** 2)
    layer = np.repeat(np.arange(len(share)), quanta * _SPOTS[0])
    radius = np.where(rng.random(len(layer)) < weight[layer], core[layer], tail[layer]) * layers.moliere[layer]
    # With r^2 / R^2 = e1 / e2 of two Exp(1) variates, r has the density 2 r R^2 / (r^2 + R^2)^2 of `profiles.radial`.
    spread = radius / np.sqrt(2.0 * rng.standard_exponential(len(layer)))
    signal = own.stochastic[0] ** 2 / _SPOTS[0] * ELECTRON_SIGNAL / layers.mip
    return _spots(rng, layers, shape, ray, layer, spread, signal)


def pion(rng, own, layers, shape, energy, ray):
    """[Z, Y, X] float64 MIP that a charged pion leaves; arguments as `photon`."""
    start = layers.position(layers.interaction, rng.standard_exponential())
    left = _track(rng, layers, shape, ray, start)
    mean = 1.0 - energy ** (_PION_POWER - 1.0)
    fraction = rng.beta(_FRACTION_SPREAD * mean, _FRACTION_SPREAD * (1.0 - mean))
    for part, spread in ((fraction, electromagnetic), (1.0 - fraction, _hadronic)):
        weights = rng.standard_exponential(1 + rng.poisson(math.log(energy) / 2.0))
        for weight in weights / math.fsum(weights):
            deeper = layers.at(layers.interaction, start) + 0.3 * rng.standard_exponential()
            position, place, _ = _along(layers, ray, start)
            slope = ray[2] + 0.15 * rng.standard_normal(2)
            beginning = layers.position(layers.interaction, deeper)
            left += spread(
                rng, own, layers, shape, part * weight * energy, _along(layers, (position, place, slope), beginning)
            )
    return left


def muon(rng, own, layers, shape, energy, ray):
    """[Z, Y, X] float64 MIP that a muon leaves, whatever its energy; arguments as `photon`."""
    return _track(rng, layers, shape, ray, float(len(layers.absorbers)))


_SHOWERS = {"photon": photon, "pion": pion, "muon": muon}


def _hadronic(rng, own, layers, shape, energy, ray):
    """[Z, Y, X] float64 MIP of the part of a hadronic shower that is not electromagnetic; arguments as `photon`."""
    form, rate = profiles.hadronic(energy)
    share = profiles.longitudinal(form, rate, layers.interaction - layers.at(layers.interaction, ray[0]))
    quanta = rng.poisson(energy * share / own.stochastic[1] ** 2)
    layer = np.repeat(np.arange(len(share)), quanta * _SPOTS[1])
    lengths = np.diff(layers.mm) / np.diff(layers.interaction)  # mm per interaction length
    spread = _HADRON_RADIUS * lengths[layer] * np.sqrt(rng.standard_exponential(len(layer)))
    signal = own.stochastic[1] ** 2 / _SPOTS[1] * HADRON_SIGNAL / layers.mip
    return _spots(rng, layers, shape, ray, layer, spread, signal)


def _track(rng, layers, shape, ray, stop):
    """[Z, Y, X] float64 MIP of a minimum-ionising particle from the ray's beginning up to a position."""
    layer = np.arange(int(ray[0]), math.ceil(stop))
    moyal = [-math.log(max(n * n, 1e-12)) for n in rng.standard_normal(len(layer))]
    signal = np.zeros(shape[0])
    signal[layer] = np.maximum(1.0 + _LANDAU_WIDTH * (np.array(moyal) - _MOYAL_MEAN), 0.0)
    return _spots(rng, layers, shape, ray, layer, np.zeros(len(layer)), signal)


def _spots(rng, layers, shape, ray, layer, spread, signal):
    """Adds up spots: each of `signal[layer]` MIP, N(0, spread) mm from the ray along y and x, in the layer's middle."""
    position, place, slope = ray
    depth = (layers.mm[1:] + layers.mm[:-1]) / 2.0 - layers.at(layers.mm, position)
    voxel = [layer]
    for axis in range(2):
        mm = (place[axis] + slope[axis] * depth)[layer] + spread * rng.standard_normal(len(layer))
        voxel.append(np.floor(mm / layers.cell[axis]))
    inside = (voxel[1] >= 0) & (voxel[1] < shape[1]) & (voxel[2] >= 0) & (voxel[2] < shape[2])
    z, y, x = (index[inside].astype(np.int64) for index in voxel)
    sums = np.bincount((z * shape[1] + y) * shape[2] + x, weights=signal[z], minlength=math.prod(shape))
    return sums.reshape(shape).astype(np.float64)  # without a spot NumPy counts in integers


def _along(layers, ray, position):
    """The same ray, begun at another position."""
    way = layers.at(layers.mm, position) - layers.at(layers.mm, ray[0])
    return position, ray[1] + ray[2] * way, ray[2]


def _entry(rng, own, layers, shape, before):
    """[2] float64 mm: where a particle enters, in the middle 80 % of the front or near the one before."""
    size = np.array(shape[1:]) * layers.cell
    anywhere = size * uniform(rng, 0.1, 0.9, 2)
    step = uniform(rng, -own.near_distance, own.near_distance, 2)
    if rng.random() < own.near and before is not None:
        return np.clip(before + step, 0.0, size)
    return anywhere


def _pile_up(rng, own, layers, shape):
    """[Z, Y, X] float64 MIP of soft photons, Poisson(pileup) of them, everywhere on the front."""
    total = np.zeros(shape)
    for _ in range(int(rng.poisson(own.pileup))):
        energy = _SOFTEST + own.pileup_energy * rng.standard_exponential()
        entry = np.array(shape[1:]) * layers.cell * rng.random(2)
        total += photon(rng, own, layers, shape, energy, (0.0, entry, uniform(rng, -own.slope, own.slope, 2)))
    return total
