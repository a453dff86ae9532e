"""The learned prompts of AnomalyCLIP's authors: the "prompt_learner" of their checkpoints, as safetensors."""

TABLE = {
    r"(prompt_learner\.)?(ctx_pos|ctx_neg)": r"\2",
    r"(prompt_learner\.)?compound_prompts_text\.(\d+)": r"compound_prompts_text_\2",
    # projections that nothing uses, and tokens that follow from the texts
    r"(prompt_learner\.)?(compound_prompt_projections|token_prefix|token_suffix|tokenized_prompts).*": None,
}


def layout(path, tensor):
    """The authors' prompts are `[1, 1, length, width]`."""
    del path
    return tensor.reshape(tensor.shape[-2:])
