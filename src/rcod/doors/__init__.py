"""The ways in: the command line, the page, and the HTTP interface.

A module imports only modules before it:

    work_queue, meters, callers, guard, fields, service, server, open_photos, web, comfy, terminal,
    options, clustering, upscaling, planning, evaluating, measuring, training, cli
"""
