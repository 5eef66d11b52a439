"""How the pictures of the built-in data set are laid out and drawn."""
