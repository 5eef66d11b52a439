"""Features of a frozen network, computed once: in memory, in a temporary file, in a folder for several runs."""
