"""``lampe-eval run --dry-run``."""

from rich.console import Console
from rich.filesize import decimal

from lampe_eval.commands.progress_display import duration, say
from lampe_eval.commands.run import plan_of
from lampe_eval.preview import Preview, operations_per_second, previews
from lampe_eval.suite import Suite


def dry_run_suite(suite: Suite) -> int:
    """Prints what a suite would run, and runs nothing; the exit code is 0."""
    plan = plan_of(suite)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    times: list[float] = []
    told: set[tuple[str, tuple[str, ...]]] = set()
    for seen in previews(plan, say):
        _print(console, seen)
        if (key := (seen.task.full_name, seen.methods)) not in told:
            console.print(f"prompt of the first sample:\n{seen.text}")
            told.add(key)
        times += [] if seen.seconds is None else [seen.seconds * len(seen.methods)]
    speed = operations_per_second(plan.device)
    total = (
        f"at least {duration(sum(times))}, at {speed / 1e12:.2g} TFLOP/s measured here"
        if speed
        else "time unknown"
    )
    console.rule(align="left")
    console.print(
        f"methods   {', '.join(spec.label for spec in plan.specs)}; protocol {plan.suite.protocol_label}"
    )
    console.print(
        f"in all    {total} on {plan.device}{'' if speed else ', which is not here'}; results in {plan.folder}"
    )
    return 0


def _print(console: Console, seen: Preview) -> None:
    bins = ", ".join(f"{count} up to {end}k" for end, count in seen.histogram.items())
    console.rule(f"{seen.task.full_name} · {seen.length} tokens · {seen.model}", align="left")
    console.print(f"methods   {', '.join(seen.methods)}")
    console.print(
        f"samples   {seen.samples} a method; tokens: {bins}; {seen.cut} cut, {seen.skipped} left out"
    )
    console.print(f"longest   {seen.longest} tokens with its answer, of {seen.length}{_over(seen)}")
    cost = "" if seen.seconds is None else f"at least {duration(seen.seconds)} a method, "
    console.print(f"cost      {cost}{decimal(seen.memory)} of memory")


def _over(seen: Preview) -> str:
    return "" if seen.longest <= seen.length else ": longer than the cell, as the protocol has it"
