"""Photos in, photos out: one, several with a dial, whole folders.

A module imports only modules before it:

    spool, passes, published_pass, restore, sheet, forecast, orders, sources, jobs, ledger, batch,
    workers, interpolation, open_photo, store, cluster_plan, cluster
"""
