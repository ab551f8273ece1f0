"""Autotuning: searches the knobs of the kernel templates by measuring, or by a model, and remembers what it found.

tasks     a network's layers that have knobs, equal ones once           (task.py)
space     the choices of a task: algorithm and schedule                 (space.py)
trial     a choice and the default side by side in a small library      (trial.py, gpu_trial.py, csrc/measure.c)
measure   TVM's MetaSchedule builder and runners, here or over RPC      (measure.py, devices.py)
search    what to measure next: a learned model and expected gains      (model.py, features.py, search.py)
database  MetaSchedule's JSON database, one record a measurement        (database.py)
modelled  all of it where a model knows the time: a VTA                 (modelled.py)
tuned     the choices of a database in place of a target's own          (tuned.py)
"""
