"""What `fewseg data` shows of a data set: what is wrong with its files, what it holds, a sheet of its pictures."""
