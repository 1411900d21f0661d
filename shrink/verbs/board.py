"""`shrink bench` and `shrink board`: measure a bundle where it will run, and make such a place ready."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shrink.shell import say
from shrink.verbs.options import EXIT_VERDICT, Data

if TYPE_CHECKING:
    from shrink.boards.places import Places


def bench(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle that `shrink export` wrote.")],
    on: Annotated[
        str,
        typer.Option(metavar="URL", help="local, ssh://user@host[:port][/?python=PATH], adb:SERIAL, qemu:cortex-a72."),
    ] = "local",
    against: Annotated[
        Path | None,
        typer.Option(metavar="BUNDLE", help="Time it in turns with this one, such as the float one."),
    ] = None,
    data: Data = None,
    images: Annotated[int, typer.Option(metavar="COUNT", min=1, help="Evaluation images to answer there.")] = 200,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result there.")] = None,
    threads: Annotated[int, typer.Option(metavar="COUNT", min=1, help="Of the runtime.")] = 1,
    repeats: Annotated[int, typer.Option(metavar="COUNT", min=0, help="Series of times; 0 takes none.")] = 5,
    seconds: Annotated[float, typer.Option(metavar="S", min=0.0, help="Of timing, at least, in all.")] = 60.0,
    pause: Annotated[float, typer.Option(metavar="S", min=0.0, help="Between two series, to cool down.")] = 0.0,
    quick: Annotated[bool, typer.Option("--quick", help="Time for 5 seconds only; the verdict says so.")] = False,
) -> None:
    """Measure BUNDLE on a board: self-test, accuracy with the board's own kernels, latency, memory, and what the
    numbers are worth.

    \b
    Exit codes:
      0  measured
      1  the bundle fails there, or the link was lost; then --json says so and nothing in it counts
      2  the board, the bundle or the data cannot be used

    \b
    Examples:
      shrink bench out/cnn/tflite-int8
      shrink bench out/cnn/tflite-int8 --on ssh://pi@raspberrypi.local --against out/cnn/tflite-fp32 --json pi.json
      shrink bench out/cnn/tflite-int8 --on qemu:cortex-a72
    """
    import os

    from shrink.boards.kinds import board_of
    from shrink.boards.places import places
    from shrink.progress import progress_on
    from shrink.quiet import chatter_aside

    board = board_of(on, places(os.environ))
    with chatter_aside() as stream:
        from shrink.bench import text
        from shrink.files import write_whole
        from shrink.steps import benching

        asked = benching.Request(
            bundle=bundle,
            against=against,
            data=data,
            images=images,
            threads=threads,
            repeats=repeats,
            seconds=5.0 if quick else seconds,
            samples=50 if quick else 1024,
            pause_s=pause,
        )
        progress = progress_on(stream, stages=benching.stages(board))
        result = benching.bench(asked, board, command=["shrink", *sys.argv[1:]], progress=progress)
    if json is not None:
        from shrink.bench.result import dump

        write_whole(json, dump(result))
    say(text.render(result))
    if not result.complete:
        raise typer.Exit(1)


def board_list() -> None:
    """List the kinds of boards, one a line, with an example of each."""
    from shrink.boards.kinds import EXAMPLES, SUMMARIES

    for kind, example in EXAMPLES.items():
        say(f"{example:28} {SUMMARIES[kind]}")


def board_trust(
    url: Annotated[str, typer.Argument(metavar="URL", help="ssh://user@host[:port]")],
    fingerprint: Annotated[
        str | None, typer.Option(metavar="SHA256:...", help="Trust without asking, if it offers exactly this key.")
    ] = None,
) -> None:
    """Show the fingerprint of an ssh board once, and trust it from then on; a board with another key is refused.

    \b
    Examples:
      shrink board trust ssh://pi@raspberrypi.local
      shrink board trust ssh://pi@10.0.0.7 --fingerprint SHA256:mSpZ...
    """
    import os

    from shrink.boards import trust
    from shrink.boards.kinds import board_of
    from shrink.boards.places import places
    from shrink.errors import BoardError, RequestError

    kept = places(os.environ)
    board = board_of(url, kept)
    if board.address is None:
        raise RequestError(f"{url} has no host key", "only ssh boards do", "shrink board trust ssh://user@host")
    offered = trust.offered(board, *board.address)
    before = trust.known(kept.known_hosts, *board.address)
    for line in offered.fingerprints:
        typer.echo(line, err=True)
    if before and set(before) != set(offered.lines):
        typer.echo("These are not the keys that were trusted before.", err=True)
    if fingerprint is None:
        question = "Are these the board's own? (on the board: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub)"
        if not typer.confirm(question, err=True):
            raise BoardError(f"{url} is not trusted", "you said no", "compare the fingerprint on the board itself")
    elif not any(line.split()[0] == fingerprint for line in offered.fingerprints):
        raise BoardError(f"{url} is not trusted", f"it does not offer {fingerprint}", "ask who runs the board")
    trust.keep(kept.known_hosts, *board.address, offered.lines)
    say(f"trusted, in {kept.known_hosts}")
    say(f"next: shrink bench BUNDLE --on {url}")


def board_setup(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="qemu, or adb:SERIAL; the other kinds need no setup.")],
    again: Annotated[
        bool, typer.Option("--again", help="qemu: from the beginning, also if it was done before.")
    ] = False,
) -> None:
    """Prepare emulated boards, or send a Python to an Android device; each once.

    qemu takes about 20 seconds and 200 MB in the user's cache directory, without root: Python for arm64 from Debian's
    packages and the runtimes from PyPI. A setup that broke off goes on. adb:SERIAL sends the same to the device, into a
    directory of shrink's own.

    \b
    Examples:
      shrink board setup qemu
      shrink board setup adb:0123456789ABCDEF
    """
    import os

    from shrink.boards.places import places
    from shrink.errors import RequestError

    kept = places(os.environ)
    if kind == "qemu":
        _set_up_emulator(kept, again=again)
    elif kind.startswith("adb:"):
        _set_up_phone(kind, kept)
    else:
        fix = "shrink board setup qemu, or shrink board setup adb:SERIAL"
        raise RequestError(f"{kind} needs no setup", "only emulated boards and Android devices do", fix)


def _set_up_emulator(kept: Places, *, again: bool) -> None:
    from shrink.boards import emulator, emulator_setup
    from shrink.progress import progress_on

    progress = progress_on(sys.stderr, stages=len(emulator_setup.STEPS))
    before = None if again else emulator.read_manifest(kept.emulator)
    prepared = before or emulator_setup.set_up(kept.emulator, progress, again=again)
    say(f"QEMU {prepared['qemu_version']} is ready in {kept.emulator}")
    say(prepared["no_plugin"] or "instructions will be counted")
    say(f"next: shrink bench BUNDLE --on qemu:{next(iter(emulator.CPUS))}")


def _set_up_phone(url: str, kept: Places) -> None:
    from shrink.boards import phone
    from shrink.boards.kinds import board_of
    from shrink.progress import progress_on

    board = board_of(url, kept)
    sent = phone.set_up(board, kept, progress_on(sys.stderr, stages=len(phone.STEPS)))
    say(f"{sent / 1e6:.0f} MB were sent to {board.base}" if sent else f"Python is there already, in {board.base}")
    say(f"next: shrink bench BUNDLE --on {url}")


def board_estimate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle that `shrink export` wrote.")],
) -> None:
    """Estimate the latency of BUNDLE on boards that are not there, from published figures of other networks.

    An estimate, with the error that such estimates have; measure where you can: shrink bench BUNDLE --on URL.
    Exit 3 if no figures are of networks of its size.

    Example: shrink board estimate out/cnn/tflite-int8
    """
    from shrink.bench.text import milliseconds
    from shrink.quiet import chatter_aside

    with chatter_aside():
        from shrink.steps import estimating

        found, error = estimating.estimates(bundle)
    if not found:
        say("No estimate: the published figures are of networks with far more multiply-accumulates, or far fewer.")
        raise typer.Exit(EXIT_VERDICT)
    for one in found:
        board, runtime, threads, dtype = one.where
        span = f"{milliseconds(one.low)} to {milliseconds(one.high)}"
        with_threads = f"{threads} thread{'s' if threads > 1 else ' '}"
        say(f"{board:44} {runtime:8} {with_threads} {dtype}  {milliseconds(one.ms):>9}  {span}")
    say(f"\nEstimates, not measurements: of {error.points} published figures of networks that were left out, half were "
        f"predicted within {error.median:.0%}, and {error.within_30:.0%} within 30%.")  # fmt: skip
    say("The range held 8 of 10 of them.")
