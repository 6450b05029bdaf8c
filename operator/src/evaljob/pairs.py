"""What cannot go together: a dataset with its own task, or a task with a model.

Asked for when a plan is made, and again by the runner, which believes no plan.
"""

from evaljob import metrics
from evaljob.backends import PromptFormat
from evaljob.plan import PlannedDataset
from evaljob.requests import RequestType
from evaljob.spec import Dataset, Model
from evaljob.task import Task, Truncate


def programs_problem(planned: PlannedDataset) -> str | None:
    """Why a dataset may not be scored as its task says, or None."""
    if not planned.task or not planned.task.executes or planned.dataset.allow_code_execution:
        return None
    metrics = ", ".join(planned.task.executes)
    return f"metric {metrics} of task {planned.task_name} runs programs that the model writes"


def repeats_problem(dataset: Dataset, task: Task, model: Model) -> str | None:
    """Why a dataset's `repeats` cannot work with a task and a model, or None."""
    needed = max((m.reduce.pass_at_k[0] for m in task.metrics if m.reduce and m.reduce.pass_at_k), default=1)
    if dataset.repeats < needed:
        return f"{dataset.repeats}, but a metric's reduce.passAtK needs at least {needed}"
    if dataset.repeats == 1:
        return None
    if labelled := [m.key for m in task.metrics if metrics.KINDS[m.name].aggregation.counted]:
        return f"{dataset.repeats}, but {', '.join(labelled)} counts one answer of each sample, use 1"
    if task.request_type.weighs:
        return "log-likelihoods have no randomness, use 1"
    temperatures = (model.generation.temperature, task.generation.temperature)
    if not next((t for t in temperatures if t is not None), 0):
        return (
            f"{dataset.repeats} answers at temperature 0 would be equal; set generation.temperature of "
            f"model {model.name}, or use 1"
        )
    return None


def lm_eval_problem(model: Model) -> str | None:
    """Why lm-eval cannot run its tasks on a model as the model says, or None."""
    if model.reasoning is not None:
        return f"lmEval scores thoughts as answers, model {model.name} has reasoning"
    if model.generation.stop:
        return f"generation.stop of model {model.name} would replace the stop texts of lmEval's tasks"
    if model.openai and model.chat_template_args:
        return f"chatTemplateArgs of model {model.name}: lm-eval sends none to a server"
    return None


def incompatible(model: Model, task: Task) -> str | None:
    """Why a model can never answer what a task asks, or None."""
    return next((why for bad, why in _incompatibilities(model, task) if bad), None)


def _incompatibilities(model: Model, task: Task) -> tuple[tuple[bool, str], ...]:
    """Everything that can be wrong with a pair, and how to say it."""
    name, chat, served = model.name, model.prompt_format is PromptFormat.CHAT, model.openai is not None
    kind, weighs = task.request_type, task.request_type is RequestType.LOG_LIKELIHOOD
    return (
        (
            kind is RequestType.CHAT and not chat,
            f"requestType Chat needs promptFormat Chat, model {name} has Text",
        ),
        (
            weighs and served and chat,
            (
                f"requestType LogLikelihood on the openai backend needs promptFormat Text, model {name} has Chat: "
                "chat completions return no log-probabilities of the prompt"
            ),
        ),
        (
            kind is RequestType.LOG_LIKELIHOOD_ROLLING and served,
            (
                "requestType LogLikelihoodRolling cuts texts with the model's tokenizer, the openai backend of model "
                f"{name} has none"
            ),
        ),
        (
            weighs and model.reasoning is not None,
            f"requestType LogLikelihood weighs answers without thoughts, model {name} has reasoning",
        ),
        (
            task.assistant_prefix is not None and served and chat,
            (
                f"assistantPrefix on the openai backend needs promptFormat Text, model {name} has Chat: "
                "chat completions begin answers by themselves"
            ),
        ),
        (
            task.truncate is not None and served,
            f"truncate needs the model's tokenizer and window, the openai backend of model {name} has none",
        ),
        (
            task.truncate is Truncate.START and chat,
            f"truncate Start needs promptFormat Text, model {name} has Chat: use Middle",
        ),
    )
