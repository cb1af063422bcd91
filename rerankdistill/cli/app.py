"""The command line: parses and prints, nothing else. One small file per verb, imported when it is called.

Results go to stdout, notes and progress to stderr. Exit codes are those of :mod:`rerankdistill.errors`.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer

from rerankdistill import __version__
from rerankdistill.errors import ArtifactError, RerankDistillError, RerankDistillWarning

app = typer.Typer(
    name="rerankdistill",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help comes in half the time
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

STOPPED = 130
"""The exit code after Ctrl-C."""


def _say_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_say_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from; works anywhere.")] = False,
) -> None:
    """Make small, fast rankers rank like big, slow ones."""


def main() -> None:
    """The entry point: one clear message for everything that is the user's to mend, a traceback with ``--debug``."""
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    quiet_libraries(debug)
    try:
        app(prog_name="rerankdistill")
    except SystemExit as end:
        if end.code == STOPPED:
            print("stopped; run the same command again to go on", file=sys.stderr)
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        told = in_words(error)
        print(f"error: {told}", file=sys.stderr)
        sys.exit(told.exit_code)


def in_words(error: Exception) -> RerankDistillError:
    """What to tell the user of whatever went wrong."""
    if isinstance(error, RerankDistillError):
        return error
    if isinstance(error, OSError) and error.filename:
        return ArtifactError(
            str(error.strerror or error), where=str(error.filename), fix="check the path and its rights"
        )
    what = f"{type(error).__name__}: {error}".strip().rstrip(":")
    return RerankDistillError(what, where="unexpected", fix="--debug shows where; please report it with that")


def quiet_libraries(debug: bool) -> None:
    """Keep other libraries' notes off the terminal; a library user's own settings are untouched."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin cost a shared machine three quarters
    if debug:
        return
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", RerankDistillWarning)
    said: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        """A training meets the same oddity in many batches: it is said once."""
        if str(message) not in said:
            said.add(str(message))
            print(f"warning: {message}", file=sys.stderr)

    warnings.showwarning = show


def register() -> None:
    """Hang every verb onto the app. The modules import only typer; each verb imports what it does when it is called."""
    from rerankdistill.cli import shelves, steps, walks
    from rerankdistill.cli.adapt import adapt
    from rerankdistill.cli.doctor import doctor
    from rerankdistill.cli.export import export
    from rerankdistill.cli.judge import judge
    from rerankdistill.cli.serve import serve
    from rerankdistill.cli.sweep import sweep
    from rerankdistill.cli.weigh import weigh

    app.command("train")(walks.train)
    app.command("eval")(walks.evaluate)
    app.command("sweep")(sweep)
    app.command("adapt")(adapt)
    app.command("judge")(judge)
    for verb in (steps.index, steps.search, steps.candidates, steps.score, steps.examples, steps.rerank, steps.report):
        app.command(verb.__name__)(verb)
    app.command("export")(export)
    app.command("weigh")(weigh)
    app.command("serve")(serve)
    for name, shelf in shelves.SHELVES.items():
        app.add_typer(shelf, name=name)
    app.command("doctor")(doctor)


register()
