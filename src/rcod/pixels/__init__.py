"""Files and tensors of pixels: reading, writing, resizing, colour, tiles, scores.

A module imports only modules before it:

    planes, tiff, extras, heads, depth, decode, metadata, placing, encode, profiles, resample,
    images, accept, stretches, color, tiling, metrics, aids, naturalness, perceptual, likeness
"""
