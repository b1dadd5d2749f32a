"""Replace functions of distilabel 1.5.3, for pipelines with a client of the Batch API alone.

`registry` keeps the replacements, `install` installs all of them, and `clients` finds the client of a step. In the
order of a run: `scheduling` gives a Task all rows, `row_groups` processes the rows, `task_outputs` and
`row_columns` add output columns, `row_storage` and `dataset_files` write rows to files, `step_process` and
`stopping` end steps and pipelines, and `resuming` continues in a later run. `ray` is for clusters.
"""
