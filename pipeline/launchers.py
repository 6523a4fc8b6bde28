"""Who started this process: a person, or Lightning as one of several of a distributed run. Standard library only."""

import os
import sys
from collections.abc import MutableMapping, Sequence

# What Lightning's other processes of a distributed run, which start with the same command, need to know.
RUN_FOLDER, RESUME_FROM = "PIPELINE_RUN_FOLDER", "PIPELINE_RESUME_FROM"
PARTNERS = "PIPELINE_NODES"  # set where torchrun has started this process as one of several that train together
OURS = "PIPELINE_PROCESS"  # set by the process that a person started, for those that it starts
# What torchrun, srun and jsrun tell a process, and what stays behind in a shell: Lightning takes itself for one of
# several by any of them, and then records nothing, or waits for others that never come.
FOREIGN = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_JOB_NAME"),
    *("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_SIZE"),
)
LAUNCHERS = {"TORCHELASTIC_RUN_ID": ("torchrun", "WORLD_SIZE"), "SLURM_STEP_ID": ("srun", "SLURM_STEP_NUM_TASKS")}


def is_helper() -> bool:
    """Whether this process is one that Lightning started to help a distributed run of ours, or a partner of one."""
    return is_partner() or (RUN_FOLDER in os.environ and os.environ.get("LOCAL_RANK", "0") != "0")


def has_partners() -> bool:
    """Whether torchrun has started this process as one of several, on several nodes."""
    return PARTNERS in os.environ


def is_partner() -> bool:
    """Whether it is one of these and not the first, which owns the record."""
    return has_partners() and os.environ.get("RANK", "0") != "0"


def take_part(arguments: Sequence[str], environ: MutableMapping[str, str] = os.environ) -> bool:
    """Whether torchrun has started this command on several nodes, and the command wants it; else nothing changes.

    Raises:
        ValueError: if several nodes are wanted and nobody has started them.
    """
    words = " ".join(arguments).replace("--num-nodes", "--num_nodes").replace("=", " ").split(" ")
    wanted = words[words.index("--num_nodes") + 1 : words.index("--num_nodes") + 2] if "--num_nodes" in words else []
    if wanted in ([], ["1"]):
        return False
    if environ.get("WORLD_SIZE", "1") == "1" or "TORCHELASTIC_RUN_ID" not in environ:
        raise ValueError(needs_launcher(wanted[0]))
    environ[PARTNERS] = environ[OURS] = str(os.getpid())
    return True


def needs_launcher(num_nodes: int | str) -> str:
    """What is wrong where several nodes are wanted and nobody has started them."""
    return (
        f"num_nodes {num_nodes} needs a launcher that starts the command on each node, with --num_nodes {num_nodes} as "
        "a flag: torchrun --nnodes N --node-rank K --master-addr FIRST --master-port P -m pipeline train ..."
    )


def tell(words: str) -> None:
    """Say it on stderr, from the first process alone: the others come to the same."""
    if not is_helper():
        print(words, file=sys.stderr)


def set_launchers_aside(environ: MutableMapping[str, str] = os.environ) -> None:
    """Forget what other launchers left in the environment: a training starts its own processes.

    To be called before Lightning is imported, which looks then.

    Raises:
        ValueError: if another launcher did start several of this command.
    """
    if environ.get(OURS):
        return
    for sign, (name, size) in LAUNCHERS.items():
        if sign in environ and environ.get(size, "1") not in ("", "0", "1"):
            raise ValueError(
                f"started {environ[size]} times by {name} ({size}={environ[size]}); start it once, without {name}: "
                "with --devices N it starts its own processes (on several nodes: --num_nodes)"
            )
    found = [name for name in FOREIGN if name in environ]
    for name in found:
        del environ[name]
    environ[OURS] = str(os.getpid())
    if telling := [name for name in found if name not in ("MASTER_ADDR", "MASTER_PORT", "SLURM_JOB_NAME")]:
        print(f"ignored from the environment: {', '.join(telling)} (it starts its own processes)", file=sys.stderr)
