"""The training loop of all networks: run configuration, learning rate, checkpoints, devices."""
