"""Install the patches of distilabel."""

from __future__ import annotations

from distilabel_openai_batch.display.brief_errors import install_brief_errors

# The import of each module registers the patches of that module.
from distilabel_openai_batch.hooks import (  # noqa: F401
    bookkeeping,
    dataset_files,
    packed_batches,
    ray,
    registry,
    resuming,
    row_flow,
    row_storage,
    run_report,
    saved_addresses,
    scheduling,
    step_deaths,
    step_loop,
    step_process,
    step_reports,
    stopping,
    task_outputs,
)
from distilabel_openai_batch.hooks.clients import register_client_type


def install(client_type: type) -> None:
    """Patch distilabel for steps that hold a client of a type, and print errors of this package without a traceback.

    The import of `plugin.base` calls this function, in the pipeline's process and in each step's process: a step's
    process imports the client's class to unpickle the step, and so has the patches before the step runs. Each patch
    acts only on steps and pipelines with a client; any other pipeline runs as without this package.

    Args:
        client_type: see `clients.register_client_type`.

    Raises:
        ImportError: this distilabel differs from release 1.5.3.
    """
    register_client_type(client_type)
    registry.install()
    stopping.watch_forks()
    install_brief_errors()
