"""The options that commands share, each group read into one object."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from omni_rt.command.report import Report
from omni_rt.errors import DeviceError, UnsupportedError
from omni_rt.placement import VOCODERS

if TYPE_CHECKING:
    from omni_rt.command.group import State
    from omni_rt.devices.device import Device
    from omni_rt.models.qwen3_omni.orchestrator import OmniOrchestrator
    from omni_rt.sampling import Sampling

Command = Callable[..., Any]

DEVICE = re.compile(r"auto|cpu|wgpu(:\d+)?")
COMPONENTS = ("audio_encoder", "vision_encoder", "thinker", "talker", "code_predictor", "code2wav")


class NoDevice(click.ClickException):
    """No usable device: exit code 3."""

    exit_code = 3


@dataclass(frozen=True)
class ModelChoice:
    """Which model runs where and how."""

    ref: str
    device: str
    placement: dict[str, str]
    quant: str | None
    context: int
    strict: bool
    vocoder: str

    def load_omni(self, report: Report) -> OmniOrchestrator:
        """Load a model that converses; raise UnsupportedError for another kind."""
        from omni_rt.models.qwen3_omni.orchestrator import OmniOrchestrator

        model = self.load(report)
        if not isinstance(model, OmniOrchestrator):
            model.close()
            raise UnsupportedError(
                f"{self.ref}: this model reads texts aloud and answers nothing: use omni-rt say, or another model"
            )
        return model

    def load(self, report: Report) -> Any:
        """Load the model behind a progress bar; raise NoDevice when its device cannot be used."""
        import omni_rt

        placement = None
        if self.placement:
            parts = {name: omni_rt.DevicePlacement(device) for name, device in self.placement.items()}
            placement = omni_rt.OmniConfig(**parts)
        try:
            with report.counting("loading") as advance:
                return omni_rt.load(
                    self.ref, device=self.device, placement=placement, quant=self.quant, context=self.context,
                    strict=self.strict, vocoder=self.vocoder, local_files_only=True, progress=advance, **cpu_settings(),
                )  # fmt: skip
        except DeviceError as error:
            raise NoDevice(str(error)) from error


@dataclass(frozen=True)
class GenerationChoice:
    """How long a reply may be and how its tokens are picked."""

    seed: int | None
    max_new_tokens: int | None
    temperature: float | None

    @property
    def sampling(self) -> Sampling | None:
        """The sampling asked for; None leaves it to the checkpoint."""
        from omni_rt.sampling import Sampling

        return None if self.temperature is None else Sampling(temperature=self.temperature)


def cpu_settings() -> dict[str, Any]:
    """Return the threads and the level of the CPU that the environment asks for, as options of `open_device`."""
    return asdict(current_state().cpu)


def current_state() -> State:
    """Return what belongs to this run of the program."""
    state: State = click.get_current_context().find_root().obj
    return state


def open_named(name: str, *, strict: bool = False) -> Device:
    """Open a device; raise NoDevice when it cannot be used."""
    from omni_rt.devices import open_device

    try:
        return open_device(name, strict=strict, **cpu_settings())
    except DeviceError as error:
        raise NoDevice(str(error)) from error


def _device(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not DEVICE.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not one of auto, cpu, wgpu, wgpu:0, wgpu:1, ...")
    return value


def _placement(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    placement: dict[str, str] = {}
    for value in values:
        for pair in value.split(","):
            component, _, device = pair.strip().partition("=")
            if component not in COMPONENTS:
                raise click.BadParameter(f"{component!r} is no component; there are {', '.join(COMPONENTS)}")
            if device not in ("auto", "cpu", "wgpu"):
                raise click.BadParameter(f"{pair!r} must name auto, cpu or wgpu after the =")
            placement[component] = device
    return placement


def device_option(command: Command) -> Command:
    """Add --device."""
    return click.option(
        "--device", default="auto", show_default=True, callback=_device, metavar="NAME",
        help="auto (a real GPU, else the CPU), cpu, wgpu, wgpu:1. A software GPU is used only when named.",
    )(command)  # fmt: skip


seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), help="Repeat what was said with this seed; a random one otherwise."
)
temperature_option = click.option(
    "--temperature",
    type=click.FloatRange(0, 100, max_open=True),
    help="0 takes the likeliest at every step; the model's own setting when left out.",
)


def _collect(command: Command, options: Sequence[Any], name: str, build: Callable[..., Any]) -> Command:
    """Add `options` to a command, which gets what `build` makes of their values as the argument `name`."""
    names = build.__annotations__.keys() - {"return"}

    @functools.wraps(command)
    def run(*args: Any, **values: Any) -> Any:
        own = {key: values.pop(key) for key in names}
        return command(*args, **{name: build(**own)}, **values)

    for option in reversed(options):
        run = option(run)
    return run


def model_options(command: Command) -> Command:
    """Add the options that say which model runs where; the command gets a ModelChoice as `model`."""

    def build(
        ref: str, device: str, place: dict[str, str], quant: str | None, context: int, strict: bool, vocoder: str
    ) -> ModelChoice:
        return ModelChoice(ref, device, place, quant, context, strict, vocoder)

    options = [
        click.option("--model", "ref", default="tiny", show_default=True, metavar="REF",
                     help="tiny (in the package), a directory, or ORG/REPO[@REVISION] that was pulled."),
        device_option,
        click.option("--place", "--placement", "place", multiple=True, callback=_placement, metavar="COMPONENT=DEVICE",
                     help="Place one component elsewhere, e.g. --place talker=cpu; may be repeated."),
        click.option("--quant", type=click.Choice(["q8_0"]), help="Quantise at load; else the file's precision."),
        click.option("--context", type=click.IntRange(16, 65536), default=4096, show_default=True,
                     help="Positions that prompt and reply may take together."),
        click.option("--vocoder", type=click.Choice(VOCODERS), default=VOCODERS[0], show_default=True,
                     help="What makes the sound of speech: griffin-lim does without a network, all at the end."),
        click.option("--strict", is_flag=True, help="Fail where a GPU would fall back to the CPU for an op."),
    ]  # fmt: skip
    return _collect(command, options, "model", build)


def generation_options(command: Command) -> Command:
    """Add the options of a reply; the command gets a GenerationChoice as `generation`."""

    def build(seed: int | None, max_new_tokens: int | None, temperature: float | None) -> GenerationChoice:
        return GenerationChoice(seed, max_new_tokens, temperature)

    options = [
        seed_option,
        click.option("--max-new-tokens", type=click.IntRange(1, 65536),
                     help="Tokens of text at most; the model's own limit when left out."),
        temperature_option,
    ]  # fmt: skip
    return _collect(command, options, "generation", build)


def report_options(command: Command) -> Command:
    """Add --json, -q and -v; the command gets a Report as `report`."""

    def build(as_json: bool, quiet: bool, verbose: bool) -> Report:
        current_state().verbose = verbose
        return Report(as_json, quiet, verbose)

    options = [
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout."),
        click.option("-q", "--quiet", is_flag=True, help="No progress and no timings on stderr."),
        click.option("-v", "--verbose", is_flag=True, help="Say more; show a traceback when something fails."),
    ]
    return _collect(command, options, "report", build)
