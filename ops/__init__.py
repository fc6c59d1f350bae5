"""Pure functions on tensors: TensorFlow and NumPy only."""
