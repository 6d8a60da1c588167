"""`python -m observer_actors`."""

from observer_actors.cli import main

if __name__ == "__main__":
    main()
