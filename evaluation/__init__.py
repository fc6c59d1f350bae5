"""How good the detections are: average precision, and pictures to look at."""
