"""From photos to weights: degradation, pairs, losses, recipes, the loop."""
