"""The night: pairs, datasets, training, the adapter store, the gate and publishing."""
