"""The same as `sumrnn analyze`."""

from sumrnn.cli import analyze, command

if __name__ == "__main__":
    command.run(analyze.main)
