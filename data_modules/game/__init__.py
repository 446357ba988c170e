"""First-person play in ViZDoom: its engine, a player, and prompts of which it knows the truth."""
