"""The networks, the step that joins them, and the files that hold their weights.

A module imports only modules before it:

    lora, voices, guide, steady, backbone, swift, bases, storage, subpixel, stable, prompts,
    shapes, estimators, onestep, framing, systems, assembly, published, graphs, exporting,
    engines, checkpoint
"""
