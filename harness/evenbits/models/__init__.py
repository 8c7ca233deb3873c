"""Models: named by a user, found on this machine or fetched, checked, fingerprinted, loaded, taken apart by name."""
