"""`genpercept predict`: images in, predictions out."""
