"""A real server with log-probabilities of prompts: `python echo_server.py --model DIR --port N`.

Completions with `echo` and `logprobs` over real weights, laid out as vLLM lays them out: null for the first token,
the most likely token beside the actual one, then the new tokens. Nothing of this project computes here.
"""

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


class Weights:
    """A checkpoint that continues texts greedily."""

    def __init__(self, folder: str) -> None:
        torch.set_num_threads(1)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def complete(self, prompt: str, new: int) -> dict[str, Any]:
        """The prompt and `new` tokens, each with its log-probability."""
        ids = self.tokenizer(prompt).input_ids
        count = len(ids)
        for _ in range(new):
            ids.append(int(self._log_probabilities(ids)[-1].argmax()))
        tokens = [self._text(i) for i in ids]
        steps = list(zip(self._log_probabilities(ids), ids[1:], strict=False))
        values = [float(step[i]) for step, i in steps]
        tops = [{self._text(i): float(step[i]) for i in (i, int(step.argmax()))} for step, i in steps]
        logprobs = {
            "tokens": tokens,
            "token_logprobs": [None, *values],
            "top_logprobs": [None, *tops],
            "text_offset": [sum(map(len, tokens[:n])) for n in range(len(tokens))],
        }
        text = prompt + "".join(tokens[count:])
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": "length"}
        usage = {"prompt_tokens": count, "completion_tokens": new, "total_tokens": count + new}
        return {"object": "text_completion", "choices": [choice], "usage": usage}

    def _log_probabilities(self, ids: list[int]) -> Any:  # noqa: ANN401 - torch is not typed here
        with torch.inference_mode():
            return self.model(torch.tensor([ids])).logits[0].log_softmax(-1)

    def _text(self, token: int) -> str:
        text: str = self.tokenizer.decode([token])
        return text


class Handler(BaseHTTPRequestHandler):
    """One path, and readiness."""

    protocol_version = "HTTP/1.1"
    weights: Weights

    def do_GET(self) -> None:
        """Readiness."""
        self._send(200, {"status": "ok"})

    def do_POST(self) -> None:
        """A completion."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path != "/v1/completions" or not body["echo"] or not body["logprobs"]:
            self._send(400, {"error": {"message": f"{self.path}: only completions with echo and logprobs"}})
        else:
            self._send(200, self.weights.complete(body["prompt"], body["max_tokens"]))

    def _send(self, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    Handler.weights = Weights(args.model)
    ThreadingHTTPServer(("127.0.0.1", args.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
