"""`omni-rt ops`: the op table."""

from __future__ import annotations

import click

from omni_rt.command.options import report_options
from omni_rt.command.report import Report


@click.command(
    epilog="""\b
Examples:
  omni-rt ops
  omni-rt ops matmul
  omni-rt ops --json
"""
)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@report_options
def ops(names: tuple[str, ...], report: Report) -> None:
    """List what can be computed: each op with its signature, its GPU kernels and its C bodies.

    With -v also the attributes, the variants of each kernel, and how many sizes the parity tests try.
    """
    import omni_rt.ops  # noqa: F401 (fills the table)
    from omni_rt.ops.contract import TABLE

    unknown = sorted(set(names) - set(TABLE))
    if unknown:
        raise click.UsageError(f"no op is called {', '.join(unknown)}; there are {', '.join(sorted(TABLE))}")
    for name in sorted(names or TABLE):
        op = TABLE[name]
        summary = (op.body.__doc__ or "").strip().splitlines()[0]
        kernels = [
            {
                "shader": k.shader,
                "dtypes": dict(k.dtypes),
                "needs": list(k.needs),
                "variants": [dict(v) for v in k.variants],
            }
            for k in op.kernels
        ]
        if report.as_json:
            report.result(
                {"op": name, "signature": op.signature, "summary": summary, "attributes": sorted(op.attributes)}
                | {"kernels": kernels, "natives": [native.function for native in op.natives]}
                | {"tolerance": {"nmse": op.tolerance.nmse, "peak": op.tolerance.peak}, "sizes": len(op.domain)}
            )
            continue
        click.echo(f"{name}({op.signature})\n    {summary}")
        click.echo(f"    wgsl: {', '.join(dict.fromkeys(k.shader for k in op.kernels)) or 'none, runs on the CPU'}")
        click.echo(f"    c: {', '.join(n.function for n in op.natives) or 'none, runs on NumPy'}")
        if report.verbose:
            click.echo(f"    attributes: {', '.join(sorted(op.attributes)) or 'none'}; sizes tested: {len(op.domain)}")
            for kernel in op.kernels:
                variants = "; ".join(str(dict(v)) for v in kernel.variants if v)
                click.echo(f"    {kernel.shader}: {variants or 'one variant'}")
