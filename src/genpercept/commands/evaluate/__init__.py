"""What `genpercept evaluate` is made of: plans, predictions on disk, metrics beside the network, reports."""
