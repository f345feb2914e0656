"""The same as `sumrnn predict`."""

from sumrnn.cli import command, predict

if __name__ == "__main__":
    command.run(predict.main)
