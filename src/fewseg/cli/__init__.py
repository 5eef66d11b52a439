"""The command line: a file per command or group of commands, and how results are printed."""
