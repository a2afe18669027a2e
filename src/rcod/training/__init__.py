"""From photos to weights: degradation, pairs, losses, recipes, the loop.

A module imports only modules before it:

    kernels, degradation, presets, photos, data, interrupts, stream, real_esrgan, losses, vsd,
    adversary, projected, course, gating, recipe, published_recipe, catalog, team, learner, task,
    events, rundir, tiny_losses, growing, tiny_task, published_student, published_losses, captions,
    published_task, watch, tensor_memory, budget, train
"""
