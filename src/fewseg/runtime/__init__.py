"""The machine: processes, threads and memory."""
