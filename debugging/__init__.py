"""Is the network, its data or its training broken? Commands, each with a verdict and a picture."""
