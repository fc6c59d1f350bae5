"""A wandb run that ends no training: the first error switches it off, and is said in a line."""

import contextlib
import json
import pathlib

from tracking import wandb_start

MANIFEST = "manifest.json"
IN_PLACE = {"policy": "immutable", "skip_cache": True}  # files of an artifact are not copied


class WandbRun:
    """What is sent to wandb, as long as that works."""

    def __init__(self, workdir, project, config, mode):
        """Starts a run or goes on with that of the folder; see `wandb_start.start`."""
        self.run = wandb_start.start(workdir, project, config, mode)
        self.dataset = {}

    @property
    def is_on(self):
        """Whether anything that is made for it is sent."""
        return self.run is not None

    def log(self, step, make):
        """Sends {name: number or media} as `make()` gives it, which is not called where the run is off."""
        self._attempt(lambda: self.run.log(make(), step=step))

    def use_dataset(self, name, manifest):
        """Notes the records that the run reads: an artifact of their manifest, checksums and all, but of no volume."""
        self._attempt(lambda: self._use_dataset(name, manifest))

    def log_artifact(self, path, kind, name):
        """Keeps a file, a folder, or all files of a checkpoint's prefix, as the newest version of an artifact.

        Args:
          path: of them. They are not copied: until they are uploaded, which may be long after the run, they must stay.
          kind: wandb's type of the artifact, "model".
          name: of the artifact, without the run's.
        """
        self._attempt(lambda: self._log_artifact(pathlib.Path(path), kind, name))

    def close(self):
        """Ends the run; tells how to upload it where it is offline."""
        self._attempt(self._finish)

    def _attempt(self, send):
        if self.run is None:
            return
        try:
            send()
        except Exception as error:
            # A full disk, a service that has died: whatever it is, the training goes on.
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
            print(f"wandb: not continued ({reason}); metrics.jsonl has everything", flush=True)
            self.run = None
            if isinstance(error, ConnectionError):
                _forget_service()

    def _use_dataset(self, name, manifest):
        import wandb

        path = pathlib.Path(self.run.dir) / MANIFEST  # stays with the run
        path.write_text(json.dumps(manifest, indent=2) + "\n")
        artifact = wandb.Artifact(f"records-{name}", "dataset")
        artifact.add_file(str(path), **IN_PLACE)
        # As run.use_artifact does it, which refuses offline, and online waits for the server.
        self.run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
        self.dataset = {"dataset": artifact.name, "dataset_digest": artifact.digest}

    def _log_artifact(self, path, kind, name):
        import wandb

        artifact = wandb.Artifact(f"{self.run.id}-{name}", kind, metadata=self.dataset)
        if path.is_dir():
            artifact.add_dir(str(path), **IN_PLACE)
        else:
            files = [path] if path.is_file() else sorted(path.parent.glob(f"{path.name}.*"))
            if not files:
                raise FileNotFoundError(f"{path}: no such file, folder or checkpoint")
            for file in files:
                artifact.add_file(str(file), **IN_PLACE)
        self.run.log_artifact(artifact)

    def _finish(self):
        is_offline, folder = self.run.settings.mode == "offline", pathlib.Path(self.run.dir).parent
        self.run.finish()
        if is_offline:
            print(f"wandb: offline run; upload it with: wandb sync {folder}", flush=True)


def _forget_service():
    """Takes back what would call a service that has died when the process ends."""
    import wandb

    with contextlib.suppress(Exception):
        wandb.teardown()
