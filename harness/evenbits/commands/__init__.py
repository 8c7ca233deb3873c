"""The commands of `evenbits`, one per module; `evenbits.commands.app` registers them."""
