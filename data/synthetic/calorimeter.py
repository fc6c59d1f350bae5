"""A sampling calorimeter: layers of absorber and scintillator, one behind the other along z."""

import dataclasses

import numpy as np

from data.errors import InputError


@dataclasses.dataclass(frozen=True)
class Material:
    """Properties of a material, from the tables of the Particle Data Group (PDG, Review of Particle Physics)."""

    charge: float  # Z
    radiation_length: float  # mm
    interaction_length: float  # mm, nuclear
    critical_energy: float  # GeV, of electrons
    moliere_radius: float  # mm
    mip_loss: float  # GeV per mm, of a minimum-ionising particle


ABSORBERS = {
    "tungsten": Material(74.0, 3.504, 99.46, 0.00797, 9.327, 0.002210),
    "lead": Material(82.0, 5.612, 175.9, 0.00743, 16.02, 0.001273),
    "copper": Material(29.0, 14.36, 153.2, 0.01942, 15.68, 0.001257),
    "iron": Material(26.0, 17.57, 167.7, 0.02168, 17.19, 0.001143),
}
SCINTILLATOR = Material(5.6, 413.1, 771.0, 0.0931, 94.0, 0.000205)  # polystyrene


@dataclasses.dataclass(frozen=True, eq=False)
class Calorimeter:
    """Layers from the front, and how a position between them counts in mm, radiation and interaction lengths.

    A position is a number of layers: 2.5 is the middle of the third.

    Attributes:
      mm, radiation, interaction: [L + 1] float64, from the front to the beginning of every layer and the end.
      absorbers: the Material of the absorber of each layer; L of them.
      moliere: [L] float64, mm: the absorber's, in a layer that the scintillator makes less dense.
      mip: [L] float64, GeV that a minimum-ionising particle loses in the layer.
      cell: [2] float64, mm along y and x.
    """

    mm: np.ndarray
    radiation: np.ndarray
    interaction: np.ndarray
    absorbers: tuple
    moliere: np.ndarray
    mip: np.ndarray
    cell: np.ndarray

    def position(self, lengths, value):
        """Position at which `lengths` (self.mm, self.radiation or self.interaction) reaches a value, or L."""
        layer = int(np.searchsorted(lengths, value, side="right")) - 1
        if layer >= len(self.absorbers):
            return float(len(self.absorbers))
        return layer + float((value - lengths[layer]) / (lengths[layer + 1] - lengths[layer]))

    def at(self, lengths, position):
        """The value of `lengths` at a position in 0..L."""
        layer = min(int(position), len(self.absorbers) - 1)
        return float(lengths[layer] + (position - layer) * (lengths[layer + 1] - lengths[layer]))

    def spacing(self):
        """[3] float64 mm along z, y, x: that along z is the mean over the layers, which differ."""
        return np.array([self.mm[-1] / len(self.absorbers), *self.cell])


def build(sections, cell, num_layers):
    """The Calorimeter of sections (layers, absorber, its mm, mm of scintillator).

    Raises:
      InputError: their layers do not add up to `num_layers`.
    """
    total = sum(section[0] for section in sections)
    if total != num_layers:
        raise InputError(
            f"data.synthetic.shape: expected {total} layers along z (as in data.synthetic.showers.sections), "
            f"came {num_layers}"
        )
    layers = [(ABSORBERS[name], mm, active) for count, name, mm, active in sections for _ in range(count)]

    def lengths(of):
        steps = [mm / of(absorber) + active / of(SCINTILLATOR) for absorber, mm, active in layers]
        return np.cumsum([0.0, *steps])

    return Calorimeter(
        mm=np.cumsum([0.0, *(mm + active for _, mm, active in layers)]),
        radiation=lengths(lambda material: material.radiation_length),
        interaction=lengths(lambda material: material.interaction_length),
        absorbers=tuple(absorber for absorber, _, _ in layers),
        moliere=np.array([absorber.moliere_radius * (mm + active) / mm for absorber, mm, active in layers]),
        mip=np.array([mm * absorber.mip_loss + active * SCINTILLATOR.mip_loss for absorber, mm, active in layers]),
        cell=np.array(cell, np.float64),
    )
