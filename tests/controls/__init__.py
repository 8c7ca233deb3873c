"""Shows that the instrument works: planted effects, drawn studies, models ruined on purpose."""
