"""The mathematics of one diffusion step: tensors in, tensors out, no networks."""
