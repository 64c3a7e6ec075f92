"""Real nodes and workers in network namespaces, under perturbations drawn from a seed.

    python -m tests.scenarios --seeds 20

`plan.py` draws what happens, `switch.py` and `namespaces.py` are the network, `world.py` the processes, `story.py`
plays one plan and measures, `findings.py` says what must hold after it.
"""
