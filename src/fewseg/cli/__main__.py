"""`python -m fewseg.cli`, as 0.1 spelled it: the command line."""

from fewseg.cli.main import main

if __name__ == "__main__":
    main()
