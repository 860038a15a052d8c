"""From a data set's samples to a step's batch: records, augmentation, caches, order."""
