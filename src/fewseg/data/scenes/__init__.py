"""How the pictures of the built-in data set `scenes` are laid out and drawn."""
