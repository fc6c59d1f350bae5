"""Reading, converting, augmenting and feeding volumes."""
