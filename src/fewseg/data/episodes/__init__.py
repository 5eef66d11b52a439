"""Episodes: how they are drawn, listed and hashed, and under which protocol they are measured."""
