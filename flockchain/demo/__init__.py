"""`flockchain demo`: the main job from nothing, on one machine, with a poisoner among the trainers.

    plan.py      who takes part, with which data, and what the task says: sizes chosen from measured budgets
    run.py       prepare, start four nodes and seven workers, create the task, watch it to its end
    watch.py     progress for people while it runs
    summary.py   what it came to, as JSON and in 80 columns

No coordinator: once the task exists, everything passes through transactions and peer-to-peer blobs.
"""
