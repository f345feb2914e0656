"""The same as `sumrnn export`."""

from sumrnn.cli import command, export

if __name__ == "__main__":
    command.run(export.main)
