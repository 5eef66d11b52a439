"""Training: the loop, what it trains, and how a run is logged, resumed and repeated."""
