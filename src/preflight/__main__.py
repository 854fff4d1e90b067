"""`python -m preflight` is the same as `preflight`."""

from preflight.cli.app import main

if __name__ == "__main__":
    main()
