"""What is decided from damage: the hypotheses, the established findings, the gate."""
