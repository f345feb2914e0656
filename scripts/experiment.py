"""The same as `sumrnn experiment`."""

from sumrnn.cli import command, experiment

if __name__ == "__main__":
    command.run(experiment.main)
