"""As much of W&B's server as a run talks to, on this machine."""

import base64
import gzip
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

VIEWER = {
    **{"id": "VXNlcjox", "username": "me", "entity": "me", "name": "me", "email": "e"},
    **{"teams": {"edges": []}, "apiKeys": {"edges": []}, "admin": False, "flags": "{}"},
}
PROJECT = {"id": "p", "name": "p", "entity": {"id": "e", "name": "me"}}


class Server(ThreadingHTTPServer):
    """As much of W&B's server as a run talks to, on this machine: it keeps the history it gets."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.history: dict[str, list[dict]] = {}  # rows by run id
        self.buckets: list[dict] = []  # what runs said of themselves
        self.made: list[str] = []  # names of artifacts, as they are committed
        self.used: list[str] = []  # names of artifacts that runs say they use
        self.views: list[dict] = []  # workspaces and reports, each time they were saved
        self.saved: dict[str, dict] = {}  # the same by id
        self.silent = threading.Event()  # no GraphQL answer while it is set
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""

    def bucket(self, run: str) -> dict[str, Any]:
        rows = self.history.get(run, [])
        return {
            "id": "UnVuOjE=",
            "name": run,
            "displayName": run,
            "description": "",
            "config": "{}",
            "sweepName": None,
            "project": PROJECT,
            "historyLineCount": len(rows),
            "eventsLineCount": 0,
            "logLineCount": 0,
            "historyTail": json.dumps([json.dumps(row) for row in rows[-1:]]),
            "summaryMetrics": json.dumps(rows[-1] if rows else {}),
            "eventsTail": "[]",
            "wandbConfig": '{"t": 1}',
            "tags": [],
        }

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        run = variables.get("name") or variables.get("run") or ""
        if operation == "UpsertBucket":
            self.history.setdefault(run, [])
            self.buckets.append(variables)
            return {"upsertBucket": {"bucket": self.bucket(run), "inserted": True}}
        if operation == "RunResumeStatus":
            known = self.bucket(run) if run in self.history else None
            return {"model": {**PROJECT, "bucket": known}}
        if operation == "CreateRunFiles":
            put = [{"name": name, "uploadUrl": f"{self.url}/put"} for name in variables["files"]]
            return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": put}}
        return self.answer_of_artifacts(operation, variables)

    def answer_of_artifacts(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """An artifact's id is its name."""
        put = {"id": "f", "name": "n", "displayName": "n", "uploadUrl": f"{self.url}/put"}
        put |= {"uploadHeaders": [], "storagePath": "p", "uploadMultipartUrls": None}
        if operation == "Viewer":
            return {"viewer": VIEWER}
        if operation == "CreateArtifact":
            name = variables["input"]["artifactCollectionName"]
            sequence = {"id": "s", "latestArtifact": None}
            made = {"id": name, "state": "PENDING", "artifactSequence": sequence}
            return {"createArtifact": {"artifact": made}}
        if operation == "CreateArtifactManifest":
            return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": put}}}
        if operation == "CreateArtifactFiles":
            asked = variables["input"]["artifactFiles"]
            of = {"artifact": {"id": asked[0]["artifactID"]}}
            nodes = [{"node": put | of | {"name": one["name"]}} for one in asked]
            return {"createArtifactFiles": {"files": {"edges": nodes}}}
        if operation == "CommitArtifact":
            self.made.append(variables["artifactID"])
            return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": "d"}}}
        if operation == "UseArtifact":
            self.used.append(variables["input"]["artifactID"])
            return {"useArtifact": {"artifact": {"id": variables["input"]["artifactID"]}}}
        return {} if operation else self.answer_without_name(variables)

    def answer_without_name(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Queries that do not say what they are, by what they ask with."""
        if "spec" in variables:
            self.views.append(variables)
            number = base64.b64encode(f"View:{len(self.views)}".encode()).decode()
            named = {"id": variables.get("id") or number, "name": variables["name"]}
            named["type"] = variables["type"]
            named |= {"displayName": variables["displayName"], "description": "", "user": None}
            project = {"id": "p", "name": "dermsynth", "entityName": "me"}
            named |= {"project": project, "spec": variables["spec"]}
            named |= dict.fromkeys(("createdAt", "updatedAt"), "2026-01-01T00:00:00")
            self.saved[named["id"]] = named
            return {"upsertView": {"view": named, "inserted": True}}
        if "viewName" in variables:
            found = [one for one in self.saved.values() if one["name"] == variables["viewName"]]
            return {"project": {"allViews": {"edges": [{"node": one} for one in found]}}}
        if "reportId" in variables:
            return {"view": self.saved.get(variables["reportId"])}
        if not variables:
            return {"viewer": VIEWER}
        if "perPage" in variables:  # whose projects there are
            page = {"endCursor": None, "hasNextPage": False}
            known = {"id": "UHJvamVjdDo=", "name": "dermsynth", "entityName": "me", "user": None}
            known |= {"createdAt": "", "isBenchmark": False}
            return {"models": {"edges": [{"node": known, "cursor": "c"}], "pageInfo": page}}
        return {"project": {"artifact": None}}  # whether there is one already


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.reply({})

    def do_PUT(self) -> None:
        self.body()
        self.reply({})

    def do_POST(self) -> None:
        body = self.body()
        if self.path.endswith("/graphql"):
            while self.server.silent.wait(0) and not threading.Event().wait(0.2):
                pass
            asked = json.loads(body)
            variables = asked.get("variables") or {}
            self.reply({"data": self.server.answer(asked.get("operationName", ""), variables)})
        elif self.path.endswith("/file_stream"):
            sent = json.loads(body).get("files", {}).get("wandb-history.jsonl")
            if sent:
                rows = self.server.history.setdefault(self.path.split("/")[-2], [])
                rows[sent["offset"] :] = [json.loads(line) for line in sent["content"]]
            self.reply({})
        else:
            self.reply({})

    def body(self) -> bytes:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        zipped = self.headers.get("Content-Encoding") == "gzip"
        return gzip.decompress(content) if zipped else content

    def reply(self, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def environment(home: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    root = str(Path(__file__).parents[2])
    return kept | {"HOME": str(home), "NETRC": str(home / "no"), "PYTHONPATH": root}


def sync(path: Path, server: Server, home: Path) -> None:
    wandb = [sys.executable, "-m", "wandb", "sync", str(path)]
    env = environment(home) | {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": server.url}
    subprocess.run(wandb, env=env, check=True, capture_output=True, timeout=120)
