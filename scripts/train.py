"""The same as `sumrnn train`."""

from sumrnn.cli import command, train

if __name__ == "__main__":
    command.run(train.main)
