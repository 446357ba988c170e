"""What a model of the first-person game is worth: against the simulator, and by the keys that it recognises."""
