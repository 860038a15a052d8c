"""What `genpercept.training.loop` needs: data order, augmentation, caches, stages, checkpoints. Private."""
