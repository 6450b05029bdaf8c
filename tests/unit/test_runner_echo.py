"""Log-likelihoods out of completions with echo: what is taken for the prompt's log-probabilities, and what is not."""

import pytest

from evaljob.names import Reason
from evaljob_runner.backends import echo
from evaljob_runner.backends.base import Unsupported
from evaljob_runner.errors import Fatal


def test_a_choice_that_melts_into_its_context_is_refused() -> None:
    """No token would be left to weigh; the sum of none is the best of all."""
    token = echo.Token(-1.0, -1.0)
    with pytest.raises(Fatal, match="'s' gives no token of its own") as caught:
        echo.weight((token, token), (token, token), "s")
    assert caught.value.reason is Reason.BAD_DATA


@pytest.mark.parametrize(
    "logprobs",
    [
        pytest.param(None, id="transformers serve: null"),
        pytest.param(
            {"content": [{"token": " a", "logprob": -1.0}]}, id="llama-server: of new tokens, as chat"
        ),
        pytest.param({"token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0}]}, id="of the new token only"),
        pytest.param(
            {"token_logprobs": [None, -1.0, -1.0], "top_logprobs": None}, id="no most likely tokens"
        ),
    ],
)
def test_what_is_not_the_prompts_is_not_taken_for_it(logprobs: object) -> None:
    body = {"choices": [{"text": " a", "logprobs": logprobs}], "usage": {"prompt_tokens": 3}}
    with pytest.raises(Unsupported, match=r"usage.prompt_tokens is 3"):
        echo.prompt_tokens(body)


@pytest.mark.parametrize("new", [0, 1])
def test_a_new_token_behind_the_prompt_is_dropped(new: int) -> None:
    logprobs = {
        "token_logprobs": [None, -2.0] + [-9.0] * new,
        "top_logprobs": [None, {"a": -1.0, "b": -2.0}] + [{"c": -9.0}] * new,
    }
    body = {"choices": [{"logprobs": logprobs}], "usage": {"prompt_tokens": 2}}
    assert echo.prompt_tokens(body) == (echo.Token(None, None), echo.Token(-2.0, -1.0))
