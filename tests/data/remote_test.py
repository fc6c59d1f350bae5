"""Records on servers of this machine."""

import contextlib
import functools
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

from data import pipeline
from tests import mains
from tests.data.pipeline_test import first, input_config, make_records

READ = """
import json, sys
from configs import command_line
folder = sys.argv.pop()

def main():
    from data import pipeline, records, volumes
    from tests.data.pipeline_test import first, input_config
    manifest = records.read_manifest(folder)
    (batch,) = first(pipeline.train_batches(folder, manifest, input_config(), batch_size=2, seed=0, stop=2), 1)
    (volume,) = volumes.of_split(folder, manifest, "val", input_config())
    print(json.dumps([float(batch["volume"].sum()), volume["name"]]), flush=True)

command_line.run(main)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "records"
    return folder, make_records(folder, num_train=3, num_val=1)


def read(address, **environment):
    """What a process of its own reads from there: the sum of a batch and the name of a volume, or its last line."""
    done = subprocess.run(
        [sys.executable, "-c", READ, address],
        cwd=mains.ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=120,
    )
    assert done.returncode == (0 if done.stdout else 1 if "Traceback" in done.stderr else 2)
    return json.loads(done.stdout) if done.stdout else done.stderr


def assert_same(found, made):
    (batch,) = first(pipeline.train_batches(*made, input_config(), batch_size=2, seed=0), 1)
    np.testing.assert_allclose(found[0], batch["volume"].sum(), rtol=1e-6)
    assert found[1] == "shapes_0_00003"


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Files, or parts of them."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked, path = self.headers.get("Range"), self.translate_path(self.path)
        if not asked or not os.path.isfile(path):
            return super().do_GET()
        begin, end = (int(number) for number in asked.removeprefix("bytes=").split("-"))
        with open(path, "rb") as stream:
            whole = stream.read()
        part = whole[begin : end + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {begin}-{begin + len(part) - 1}/{len(whole)}")
        self.end_headers()
        self.wfile.write(part)
        return None

    def log_message(self, *_):
        pass


class WholeFileHandler(http.server.SimpleHTTPRequestHandler):
    """Files, whatever part of them is asked for."""

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(handler, folder):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    server.handle_error = lambda *_: None  # the other side hangs up when it has what it wants
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class HttpTest:
    def test_records_are_read_by_ranges(self, made):
        with serving(RangeHandler, made[0]) as address:
            assert_same(read(address), made)

    def test_a_server_that_knows_no_ranges_is_no_silent_damage(self, made):
        with serving(WholeFileHandler, made[0]) as address:
            assert "expected a whole record of case" in read(address)

    def test_no_such_folder(self, made):
        with serving(RangeHandler, made[0]) as address:
            assert f"no records at {address}/none; make them with convert_main.py" in read(f"{address}/none")


@pytest.fixture(scope="module")
def bucket(made):
    """The environment and the address of an S3 server that has the records."""
    command = shutil.which("moto_server")
    if command is None:
        pytest.skip("moto[server] is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [command, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await_server(endpoint)
        put(f"{endpoint}/bucket", b"")
        for path in made[0].iterdir():
            put(f"{endpoint}/bucket/records/{path.name}", path.read_bytes())
        environment = {"S3_ENDPOINT": endpoint, "S3_USE_HTTPS": "0", "S3_VERIFY_SSL": "0"}
        environment |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
        yield {**environment, "AWS_EC2_METADATA_DISABLED": "true"}
    finally:
        server.terminate()
        server.wait()


def await_server(endpoint):
    for _ in range(100):
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(endpoint, timeout=5).close()
            return
        time.sleep(0.2)
    raise TimeoutError(f"{endpoint} does not answer")


def put(url, content):
    headers = {"Content-Type": "application/octet-stream"}
    urllib.request.urlopen(urllib.request.Request(url, content, headers, method="PUT")).close()


@pytest.mark.slow
class S3Test:
    def test_records_are_read(self, made, bucket):
        assert_same(read("s3://bucket/records", **bucket), made)

    def test_no_such_folder(self, bucket):
        assert "no records at s3://bucket/none; make them with convert_main.py" in read("s3://bucket/none", **bucket)


class LoadFileSystemsTest:
    def test_local_folders_need_none(self, tmp_path):
        assert not tf.io.gfile.exists(str(tmp_path / "none"))
        code = "import sys; from data import remote; remote.load_file_systems('runs'); "
        code += "assert 'tensorflow_io' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], cwd=mains.ROOT, check=True)
