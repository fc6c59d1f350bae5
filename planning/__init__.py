"""What the records ask of a network: histograms, anchors, patch, strides, resolutions; and the plan of it as a file."""
