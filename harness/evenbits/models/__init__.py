"""Models: named by a user, found on this machine or fetched, checked, fingerprinted, loaded, taken apart by name."""

import evenbits.models.quiet  # noqa: F401 - before a module here imports transformers, and it torchao
