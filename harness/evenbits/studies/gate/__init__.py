"""The deployment gate: limits of a policy, and comparison with a baseline."""
