"""Records that lie on a server."""

import os
import sys

_SCHEMES = ("s3://", "http://", "https://")  # gs:// TensorFlow knows by itself


def load_file_systems(folder):
    """Lets TensorFlow open files of a folder whose path begins with s3://, http:// or https://.

    S3 is configured by the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, and S3_ENDPOINT and
    S3_USE_HTTPS=0 for a server of one's own.
    """
    if str(folder).startswith(_SCHEMES):
        import tensorflow_io  # noqa: F401  registers them; takes a second


def leave(code):
    """Ends a process that has loaded the file systems, with the code of its SystemExit; else it does nothing.

    Python's own way ends in an abort (seen with tensorflow-io 0.36 once a file on S3 has been read).
    """
    if "tensorflow_io" not in sys.modules:
        return
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)
