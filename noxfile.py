"""Every check, each in a virtual environment of its own: `nox` runs all, `nox -l` lists them."""

import nox

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["style", "tests", "notebook", "package", "api"]
PYTHONS = ["3.11", "3.12", "3.13"]
OLDEST = ["jax==0.10.2", "jaxlib==0.10.2"]
"""The versions of JAX that pyproject.toml allows begin with it; without it, the newest is taken."""


@nox.session
def style(session: nox.Session) -> None:
    """Linter, formatter and types."""
    session.install("-c", "constraints.txt", "-e", ".[test]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session(python=PYTHONS)
@nox.parametrize("jax", ["oldest", "newest"])
def tests(session: nox.Session, jax: str) -> None:
    """The default tests; `nox -s tests -- -m slow` the others."""
    session.install("-e", ".[test]", *(OLDEST if jax == "oldest" else []))
    session.run("pytest", *session.posargs)


@nox.session
def notebook(session: nox.Session) -> None:
    """The notebook's cells in a short setting; `-- whole` writes the committed one."""
    session.install("-c", "constraints.txt", "-e", ".[test]")
    if session.posargs == ["whole"]:
        session.run("python", "notebooks/build.py")
    else:
        out = session.create_tmp()
        session.run("python", "notebooks/build.py", f"{out}/short.ipynb", env={"EPOCHS": "2"})


@nox.session
def package(session: nox.Session) -> None:
    """Wheel and sdist, and the wheel's commands in an empty environment."""
    out = session.create_tmp()
    session.install("build")
    session.run("python", "-m", "build", "--outdir", f"{out}/dist")
    session.install("-c", "constraints.txt", "--find-links", f"{out}/dist", "sumrnn")
    with session.chdir(out):
        session.run("sumrnn", "experiment", "tiny", "--seeds", "0:2", "--out", f"{out}/tiny")


@nox.session
def api(session: nox.Session) -> None:
    """The pages of the API, in build/api."""
    session.install("-c", "constraints.txt", "-e", ".[develop]")
    session.run("pdoc", "-d", "google", "-o", "build/api", "sumrnn")
