"""What happens to an answer: sampling, filters, metrics."""

from collections.abc import Iterator, Mapping
from typing import Any

from evaljob.lmeval import slug
from evaljob_cli.lm_eval.notes import Notes, Unfit
from evaljob_cli.lm_eval.prompts import Document
from evaljob_cli.lm_eval.reading import Config, Function

_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names of one field; the first that is there counts."""
_METRICS = {
    "multiple_choice": ("acc", "acc_norm", "acc_bytes"),
    "generate_until": ("exact_match", "bleu", "chrf", "ter"),
    "loglikelihood": ("perplexity", "acc"),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
}
"""What is computed alike, by output type."""
_OURS = {("loglikelihood", "acc"): {"name": "greedy_match", "alias": "acc"}}
"""By output type and name, where the name is another one here."""
_AGGREGATIONS = {
    "bleu": ("bleu",),
    "chrf": ("chrf",),
    "ter": ("ter",),
    "perplexity": ("perplexity",),
    "word_perplexity": ("weighted_perplexity",),
    "byte_perplexity": ("weighted_perplexity",),
    "bits_per_byte": ("bits_per_byte",),
}
"""Of metrics that are no means."""
_FLAGS = ("ignore_case", "ignore_punctuation", "ignore_numbers")
_DEFAULTS = {
    **_METRICS,
    "multiple_choice": ("acc", "acc_norm"),
    "generate_until": ("exact_match",),
}
_DEFAULT_REGEX = r"#### (\-?[0-9\.\,]+)"


def generation(config: Config, notes: Notes) -> Document:
    """`generation_kwargs`; without them lm-eval is greedy and stops at the delimiter of examples.

    Raises:
        Unfit: for a search that is not sampling.
    """
    given = dict(config.get("generation_kwargs") or {})
    until = given.pop("until", None)
    if until is None:
        until = [config.get("fewshot_delimiter", "\n\n")]
        notes.carried("generation_kwargs.until", "not there: the delimiter of examples, as lm-eval")
    stops = [str(stop) for stop in ([until] if isinstance(until, str) else until) if stop]
    found: Document = {}
    tokens = [given.pop(name, None) for name in _TOKENS]
    if most := next((n for n in tokens if n is not None), None):
        found["maxTokens"] = int(most)
    found |= _sampling(given, notes)
    if int(given.pop("num_beams", 1)) > 1:
        raise Unfit("num_beams: beam search")
    for name in given:
        notes.lost(f"generation_kwargs.{name}", "no field for it")
    if stops:
        found["stop"] = stops
    notes.carried("generation_kwargs")
    return found


def _sampling(given: dict[str, Any], notes: Notes) -> Document:
    """Greedy, unless `do_sample` or a temperature says otherwise."""
    temperature = float(given.pop("temperature", 0.0))
    samples = given.pop("do_sample", None)
    names = {"top_p": "topP", "top_k": "topK", "repetition_penalty": "repetitionPenalty"}
    found: Document = {ours: given.pop(name) for name, ours in names.items() if name in given}
    if samples is False or (samples is None and not temperature):
        return {k: v for k, v in found.items() if k == "repetitionPenalty"}
    if not temperature:
        notes.lost(
            "generation_kwargs.do_sample", "without a temperature lm-eval takes the checkpoint's; here 1"
        )
    return {"temperature": temperature or 1.0, **found}


def scoring(config: Config, notes: Notes, *, weighs: bool) -> Document:
    """`filter_list` and `metric_list`: one metric per pair of both, as lm-eval counts them.

    Raises:
        Unfit: where no metric is left.
    """
    kept = list(_metrics(config, notes))
    pipelines = dict(_pipelines(config, notes, weighs=weighs))
    found: list[Document] = []
    for name, steps in pipelines.items():
        for metric in kept:
            more = {"extract": name} if steps else {}
            if (new := {**metric, **more}) not in found:
                found.append(new)
    if not found:
        raise Unfit("no metric of its metric_list is one of ours" if not kept else "no filter is one of ours")
    found[0]["primary"] = True
    notes.carried(
        "metric_list", f"primary is the first, {found[0].get('alias', found[0]['name'])}: lm-eval has none"
    )
    extract = {name: steps for name, steps in pipelines.items() if steps}
    return {**({"extract": extract} if extract else {}), "metrics": found}


def _metrics(config: Config, notes: Notes) -> Iterator[Document]:
    listed = config.get("metric_list")
    if listed is None:
        names = _DEFAULTS[str(config.get("output_type", "generate_until"))]
        listed = [{"metric": name} for name in names]
    for item in listed:
        name = item.get("metric")
        try:
            yield _metric(item, str(config.get("output_type", "generate_until")))
        except Unfit as why:
            notes.lost(f"metric_list: {name}", str(why))


def _metric(item: Mapping[str, Any], kind: str) -> Document:
    name = item.get("metric")
    if isinstance(name, Function):
        raise Unfit("Python")
    if name not in _METRICS[kind]:
        raise Unfit("no metric of ours")
    known = _AGGREGATIONS.get(name, ("mean", "nanmean"))
    aggregation = item.get("aggregation", known[0])
    if isinstance(aggregation, Function) or aggregation not in known:
        raise Unfit(f"aggregation {aggregation}: not {known[0]}")
    args: Document = {flag: "true" for flag in _FLAGS if item.get(flag)}
    if ignored := item.get("regexes_to_ignore"):
        patterns = [ignored] if isinstance(ignored, str) else ignored
        args["regexes_to_ignore"] = "\n".join(p.replace("\n", r"\n") for p in patterns)
    ours = _OURS.get((kind, name), {"name": name})
    return {**ours, **({"args": args} if args and name == "exact_match" else {})}


def _pipelines(config: Config, notes: Notes, *, weighs: bool) -> Iterator[tuple[str, list[Document]]]:
    """Filters by name, each as steps; none where the answer counts as it is."""
    for item in config.get("filter_list") or [{"name": "none", "filter": []}]:
        try:
            yield (
                slug(str(item["name"])),
                list(_steps(item["filter"], weighs=weighs, repeats=_repeats(config))),
            )
        except Unfit as why:
            notes.lost(f"filter_list: {item['name']}", str(why))
        else:
            if config.get("filter_list"):
                notes.carried(f"filter_list: {item['name']}")
    if _repeats(config) > 1:
        notes.carried("repeats", "lm-eval takes the first answer, so one is asked for")


def _repeats(config: Config) -> int:
    return int(config.get("repeats") or 1)


def _steps(functions: list[Mapping[str, Any]], *, weighs: bool, repeats: int) -> Iterator[Document]:
    for number, function in enumerate(functions, start=1):
        name = function["function"]
        if name == "take_first":
            if number < len(functions):
                raise Unfit("take_first is not the last")
            return
        if isinstance(name, Function) or weighs:
            raise Unfit("Python" if isinstance(name, Function) else f"{name} of log-likelihoods")
        if name == "regex":
            yield from _regex(function)
        elif name == "remove_whitespace":
            yield {"strip": {}}
        elif name == "majority_vote":
            raise Unfit("majority_vote: there an answer that no filter reads votes too")
        else:
            raise Unfit(f"{name}: no step for it")
    if repeats > 1:
        raise Unfit("several answers of a sample without take_first")


def _regex(function: Mapping[str, Any]) -> Iterator[Document]:
    """The match is stripped; none is lm-eval's fallback, and `NoAnswer` here: both are wrong."""
    group = function.get("group_select", 0)
    if group not in (0, -1):
        raise Unfit(f"regex: group_select {group}: only the first or the last match")
    step: Document = {"regex": str(function.get("regex_pattern", _DEFAULT_REGEX))}
    if group == -1:
        step["take"] = "Last"
    yield step
    yield {"strip": {}}
