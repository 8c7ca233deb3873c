"""The commands of `evenbits`, one per module; `harness.cli` registers them."""
