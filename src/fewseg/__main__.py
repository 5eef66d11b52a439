"""`python -m fewseg`: the command line."""

from fewseg.cli.main import main

if __name__ == "__main__":
    main()
