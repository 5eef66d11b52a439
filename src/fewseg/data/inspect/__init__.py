"""A look at a data set: what is wrong with its files, what it holds, and a sheet of its pictures."""
