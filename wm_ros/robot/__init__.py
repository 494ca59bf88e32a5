"""A simulated robot under somebody's command: trajectories in, episodes with a result, rollouts over DDS."""
