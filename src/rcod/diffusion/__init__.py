"""The mathematics of one diffusion step: tensors in, tensors out, no networks.

A module imports only modules before it:

    schedule, grouping, dial
"""
