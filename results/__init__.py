"""Published results: which runs make them, what is measured of each, and the tables that show it."""
