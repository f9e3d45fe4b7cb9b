"""`simulate`: what the scheduler would do with these cards and these jobs, in seconds instead of days."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heygemd.cli.common import (
    JsonOption,
    cards_of,
    existing_file,
    globals_of,
    note,
    print_json,
    say,
    seconds_in_words,
)
from heygemd.core.errors import UsageError

if TYPE_CHECKING:
    from heygemd.core.simulate_trace import TraceJob

_MOST_JOBS = 1_000_000


def register(app: typer.Typer) -> None:
    app.command("simulate")(simulate)


def simulate(
    context: typer.Context,
    gpu_mib: Annotated[
        str, typer.Option("--gpu-mib", metavar="N[,N…]", help="Memory of each card; 24576x8 stands for eight alike.")
    ],
    trace: Annotated[
        Path | None, typer.Argument(metavar="TRACE", help="Jobs, one JSON object a line.", show_default=False)
    ] = None,
    generate: Annotated[int, typer.Option("--generate", metavar="N", help="Make up so many jobs instead.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same run.")] = 0,
    arrivals: Annotated[
        float, typer.Option("--arrivals-per-hour", help="Of generated jobs; 0: all wait from the beginning.")
    ] = 0.0,
    folders: Annotated[int, typer.Option("--folders", help="That generated jobs come from.")] = 8,
    error: Annotated[
        float, typer.Option("--error", help="Real memory differs from the formula by up to this share, each job.")
    ] = 0.0,
    bias: Annotated[float, typer.Option("--bias", help="And by this share for all jobs; 0.6: 60 % more.")] = 0.0,
    noise: Annotated[float, typer.Option("--noise", help="Most that other programs take of a card, as a share.")] = 0.0,
    deaths: Annotated[float, typer.Option("--deaths", help="Share of tasks whose worker dies.")] = 0.0,
    losses: Annotated[int, typer.Option("--losses", help="How often a card vanishes, for ten minutes.")] = 0,
    as_json: JsonOption = False,
) -> int:
    """Run the real scheduler over made-up time: utilisation, waiting, memory. Exits 1 when a job failed."""
    from heygemd.core.simulate import Simulation
    from heygemd.core.simulate_trace import generate as make
    from heygemd.core.simulate_world import World

    if (trace is None) == (generate <= 0):
        raise UsageError(
            "give either a TRACE or --generate N", remedy="heygemd simulate --gpu-mib 24576 --generate 500"
        )
    if generate > _MOST_JOBS:
        raise UsageError(f"--generate {generate}: at most {_MOST_JOBS}", remedy="Give a smaller number.")
    for name, value, most in (("--error", error, 0.9), ("--noise", noise, 0.9), ("--deaths", deaths, 0.9)):
        if not 0 <= value <= most:
            raise UsageError(f"{name} {value:g}: must be from 0 to {most}", remedy=f"For example: {name} 0.1")
    if not -0.9 <= bias <= 10 or losses < 0 or arrivals < 0 or folders < 1:
        raise UsageError("--bias, --losses, --arrivals-per-hour or --folders is out of range", remedy="See --help.")
    jobs: tuple[TraceJob, ...]
    jobs = _read(trace) if trace is not None else make(generate, seed, arrivals_per_hour=arrivals, folders=folders)
    settings = globals_of(context).settings.scheduler
    world = World(
        seed=seed,
        error=error,
        bias=bias,
        noise=noise,
        deaths=deaths,
        losses=losses,
        fraction=settings.gpu_memory_fraction,
        segment_seconds=settings.segment_seconds,
        aging_seconds=settings.aging_seconds,
        attempts=settings.attempts,
    )
    began = time.monotonic()
    simulation = Simulation(cards_of(gpu_mib), world)
    simulation.run(jobs)
    report = simulation.report()
    if as_json:
        print_json(report)
    else:
        _print(report)
        note(f"simulated in {time.monotonic() - began:.1f} s")
    return 1 if report["jobs"]["failed"] else 0


def _read(path: Path) -> tuple[TraceJob, ...]:
    from heygemd.core.simulate_trace import parse_trace

    existing_file(path, "TRACE")
    with path.open(encoding="utf-8", errors="replace") as file:
        jobs = parse_trace(file, path.name)
    if not jobs:
        raise UsageError(f"{path.name} has no jobs", remedy="See docs/scheduling.md for the fields of a trace.")
    return jobs


def _print(report: dict[str, Any]) -> None:
    jobs = report["jobs"]
    say(f"cards        {report['cards']} with {report['slots']} slots")
    say(f"jobs         {jobs['finished']} finished, {jobs['failed']} failed, {jobs['refused']} refused")
    if report["refused_ids"]:
        rest = ", …" if jobs["refused"] > len(report["refused_ids"]) else ""
        say(f"refused      {', '.join(report['refused_ids'])}{rest}: no card has the memory, even at the smallest")
    say(f"segments     {report['segments']}")
    span, bound = seconds_in_words(report["makespan_seconds"]), seconds_in_words(report["lower_bound_seconds"])
    ratio = report["makespan_over_bound"]
    say(f"makespan     {span}; not below {bound}" + (f" ({ratio:.3f} times that)" if ratio is not None else ""))
    say(f"busy         {100 * (report['utilisation'] or 0):.1f} % of all slots, all the time")
    say(f"memory       at most {100 * report['most_reserved_of_budget']:.1f} % of a card's budget was reserved")
    say(f"trouble      {report['out_of_memory_events']} out of memory, {report['worker_deaths']} workers died, "
        f"{report['cards_lost']} cards lost")  # fmt: skip
    for priority, waits in report["wait_seconds"].items():
        middle, late, most = (seconds_in_words(waits[key]) for key in ("p50", "p95", "max"))
        say(f"waiting      priority {priority}: half within {middle}, 95 % within {late}, all within {most}")
    say(f"decisions    {report['decisions']}, {report['microseconds_a_decision']:.0f} µs each")
