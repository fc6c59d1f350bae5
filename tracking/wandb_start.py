"""Starting wandb: online, or offline where there is no key or no network."""

import netrc
import os
import urllib.error
import urllib.parse
import urllib.request

MODES = ("auto", "online", "offline", "disabled")
ID_FILE = "wandb_id.txt"
# How long wandb's server may take to answer before a run is kept offline.
REACH_SECONDS = 5.0


def start(workdir, project, config, mode):
    """Starts a run, or goes on with that of the folder; whatever keeps wandb from it ends no training.

    Args:
      workdir: folder of the run.
      project: wandb's name for the group of runs.
      config: the resolved config as nested dicts.
      mode: "online", "offline", "disabled", or "auto": what WANDB_MODE says, else online. Without a key (in
        WANDB_API_KEY or netrc) or without network an online run is kept offline and says so.

    Returns:
      wandb's run, or None: disabled, or it does not start, which is said in a line.
    """
    mode = _stated(mode)
    if mode == "disabled":
        return None
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        return _init(workdir, project, config, mode)
    except Exception as error:
        # Whatever keeps wandb from starting (a wrong key or address, a full disk) must not end a training run.
        reason = " ".join(str(error).split())[:120]
        if mode == "offline":
            print(f"wandb: not started ({reason}); metrics.jsonl has everything", flush=True)
            return None
        print(f"wandb: not online ({reason}); this run is kept offline", flush=True)
        return start(workdir, project, config, "offline")


def _init(workdir, project, config, mode):
    import wandb  # takes a second; a disabled run need not wait for it

    if mode != "offline":
        # Asked first: wandb would wait for a key at a terminal, and for the network for several minutes.
        obstacle = _obstacle(wandb.setup().settings.base_url)
        if obstacle:
            raise ConnectionError(obstacle)
    id_file = workdir / ID_FILE
    # The agent of a sweep has named its run already.
    named = os.environ.get("WANDB_RUN_ID") or wandb.util.generate_id()
    run_id = id_file.read_text().strip() if id_file.exists() else named
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
