"""``albatross-host doctor``: what is missing on this machine, and what to type. Parses, looks, prints, exits."""

import click

from albatross_pki.errors import ExitCode


@click.command(
    help="Say what this machine can do, which promises are not in force on it, and the command that mends each."
)
@click.argument("directory", type=click.Path(file_okay=False, exists=True), required=False)
@click.option("-o", "--output", "form", type=click.Choice(["table", "json"]), default="table", help="How to show it.")
def doctor(directory: str | None, form: str) -> int:
    from albatross_pki.host.doctor import examine
    from albatross_pki.host.doctor_facts import gather
    from albatross_pki.text import printable

    findings = examine(gather(directory))
    if form == "json":
        import json
        from dataclasses import asdict

        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
        return ExitCode.OK
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        click.echo(f"{'ok  ' if finding.good else 'look'}  {finding.subject:<{width}}  {printable(finding.text)}")
        if finding.mend is not None:
            click.echo(f"      {'':<{width}}  {printable(finding.mend)}")
    return ExitCode.OK
