"""What a run says while it runs: one line on the console, one in metrics.jsonl, and a wandb run."""

import json
import math
import netrc
import os
import pathlib
import time
import urllib.error
import urllib.parse
import urllib.request

from data.atomic import replacing

MODES = ("auto", "online", "offline", "disabled")
METRICS_FILE, WANDB_ID_FILE = "metrics.jsonl", "wandb_id.txt"
# How long wandb's server may take to answer before a run is kept offline.
REACH_SECONDS = 5.0


class Tracker:
    """Writes scalars to the console, to `<workdir>/metrics.jsonl` and to wandb."""

    def __init__(self, workdir, *, project, config, step, steps, mode):
        """Starts, or goes on with, the tracking of a run.

        Args:
          workdir: folder of the run.
          project: wandb's name for the group of runs.
          config: the resolved config as nested dicts.
          step: how many the run has taken; what was recorded past it, before a kill, will be recorded again.
          steps: how many the run will have, for the time left.
          mode: "online", "offline", "disabled", or "auto": what WANDB_MODE says, else online. Without a key (in
            WANDB_API_KEY or netrc) or without network an online run is kept offline and says so.
        """
        self.workdir, self.steps = pathlib.Path(workdir), steps
        _drop_lines_past(step, self.workdir / METRICS_FILE)
        self.log_file = (self.workdir / METRICS_FILE).open("a")
        self.began, self.first_step = time.monotonic(), None
        self.run = _start_wandb(self.workdir, project, config, mode)

    def log(self, step, scalars):
        """Records the scalars of a step; prints the total and its parts."""
        self.log_file.write(json.dumps({"step": step, **scalars}) + "\n")
        self.log_file.flush()
        if self.run is not None:
            self.run.log(scalars, step=step)
        print(self._line(step, scalars), flush=True)

    def _line(self, step, scalars):
        hidden = ("total", "learning_rate", "volumes_per_second", "gradient_norm", "input_wait", "skipped")
        parts = " ".join(f"{name} {value:.3f}" for name, value in scalars.items() if name not in hidden)
        now = time.monotonic()
        if self.first_step is None:
            # The first loop includes tracing; the rate is measured from its end.
            self.began, self.first_step, left = now, step, "?"
        else:
            seconds = (now - self.began) / (step - self.first_step) * (self.steps - step)
            left = f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
        rate = scalars["volumes_per_second"]
        return f"step {step}/{self.steps} loss {scalars['total']:.3f} ({parts}) {rate:.1f} volumes/s, {left} left"

    def close(self):
        """Ends the run; tells how to upload it where it is offline."""
        self.log_file.close()
        if self.run is not None:
            is_offline, folder = self.run.settings.mode == "offline", pathlib.Path(self.run.dir).parent
            self.run.finish()
            if is_offline:
                print(f"wandb: offline run; upload it with: wandb sync {folder}", flush=True)


def _drop_lines_past(step, path):
    if not path.exists():
        return
    lines = path.read_text().splitlines()
    kept = [line for line in lines if _step_of(line) <= step]
    if len(kept) < len(lines):
        with replacing(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept))
        print(f"{path}: dropped {len(lines) - len(kept)} line(s) past step {step}", flush=True)


def _step_of(line):
    """The step of a line; infinity for the end of a line that a kill cut off."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf


def _start_wandb(workdir, project, config, mode):
    mode = _stated(mode)
    if mode == "disabled":
        return None
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        return _init_wandb(workdir, project, config, mode)
    except Exception as error:
        # Whatever keeps wandb from starting (a wrong key or address, a full disk) must not end a training run.
        reason = " ".join(str(error).split())[:120]
        if mode == "offline":
            print(f"wandb: not started ({reason}); metrics.jsonl has everything", flush=True)
            return None
        print(f"wandb: not online ({reason}); this run is kept offline", flush=True)
        return _start_wandb(workdir, project, config, "offline")


def _init_wandb(workdir, project, config, mode):
    import wandb  # takes a second; a disabled run need not wait for it

    if mode != "offline":
        # Asked first: wandb would wait for a key at a terminal, and for the network for several minutes.
        obstacle = _obstacle(wandb.setup().settings.base_url)
        if obstacle:
            raise ConnectionError(obstacle)
    id_file = workdir / WANDB_ID_FILE
    run_id = id_file.read_text().strip() if id_file.exists() else wandb.util.generate_id()
    id_file.write_text(run_id + "\n")
    return wandb.init(
        mode="offline" if mode == "offline" else "online",
        dir=str(workdir),
        project=project,
        config=config,
        id=run_id,
        resume="allow",
        settings=wandb.Settings(init_timeout=60),
    )


def _stated(mode):
    """The mode that was asked for; WANDB_MODE decides for "auto"."""
    from_environment = os.environ.get("WANDB_MODE")
    return from_environment if mode == "auto" and from_environment in MODES else mode


def _obstacle(url):
    """What keeps a run from going online, in words, or None."""
    host = urllib.parse.urlsplit(url).netloc
    if not _has_key(host):
        return f"no key for {host} in WANDB_API_KEY or netrc"
    try:
        urllib.request.urlopen(url, timeout=REACH_SECONDS).close()
    except urllib.error.HTTPError:
        return None  # an answer, if not a page
    except OSError as error:
        return f"{host} cannot be reached: {getattr(error, 'reason', error)}"
    return None


def _has_key(host):
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
