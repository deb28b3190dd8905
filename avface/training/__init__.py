"""How the shipped weights came about: data, recipes and training loops, as commands that make them again."""
