"""3D Mask R-CNN: backbone, pyramid, proposals, heads, losses, detections."""
