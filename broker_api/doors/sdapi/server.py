"""What A1111 tells of its server: scripts, flags, memory."""

from typing import Any, Final

from starlette.responses import Response

from broker_api.doors.sdapi.dialect import answer
from broker_api.endpoints import Call
from broker_api.version import version
from jobs.fleet import WorkerView

#: A client that finds the last of these clears its ControlNet units between calls; without it they stay for ever.
SCRIPTS: Final = ("controlnet", "controlnet m2m")


async def list_scripts(call: Call) -> Response:
    """Return the names of scripts, in lower case as clients compare them."""
    del call
    return answer({"txt2img": list(SCRIPTS), "img2img": list(SCRIPTS), "control": []})


async def describe_scripts(call: Call) -> Response:
    """Return what each script takes; ControlNet's units are objects and not listed one by one."""
    del call
    return answer(
        [{"name": "controlnet", "is_alwayson": True, "is_img2img": image, "args": []} for image in (False, True)]
    )


async def flags(call: Call) -> Response:
    """Return the start-up flags that clients look for."""
    del call
    return answer({"api": True, "nowebui": True, "api_auth": "", "listen": True, "port": None, "version": version()})


async def memory(call: Call) -> Response:
    """Return the memory of the fleet's workers: that of those at work counts as used."""
    online = call.services.snapshots.now.fleet.online()
    ram = [worker for worker in online if worker.hardware == "cpu"]
    cuda = [worker for worker in online if worker.hardware != "cpu"]
    return answer(
        {
            "ram": _sum(ram) if ram else {"error": "no worker draws on a CPU"},
            "cuda": {"system": _sum(cuda)} if cuda else {"error": "no worker has a GPU"},
        }
    )


def _sum(workers: list[WorkerView]) -> dict[str, Any]:
    total = sum(worker.memory_bytes for worker in workers)
    used = sum(worker.memory_bytes for worker in workers if worker.state != "idle")
    return {"free": total - used, "used": used, "total": total}
