"""Nodes of rcod for ComfyUI: copy this folder to `custom_nodes/rcod`.

ComfyUI's Python must have rcod: `python -m pip install CLONE`, where CLONE is this repository.
"""

from rcod.doors.comfy import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
