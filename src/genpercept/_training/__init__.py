"""What `genpercept.train` needs: data order, augmentation, caches, stages, checkpoints. Private."""
