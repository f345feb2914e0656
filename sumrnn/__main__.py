"""`python -m sumrnn` is the command `sumrnn`."""

from sumrnn.cli import main

if __name__ == "__main__":
    main.run()
