"""What is said over `/v1/ws/progress`: the messages of clients and the answers that are no events."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints, TypeAdapter

from jobs.parts import Strict, Text

#: Jobs one message may name.
MOST_NAMED = 1000

Ids = Annotated[list[UUID], Field(max_length=MOST_NAMED)]
EventId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,10}-[0-9]{1,10}$")]
Reference = Annotated[Text, StringConstraints(max_length=200)]


class Subscribe(Strict):
    """Watch jobs."""

    type: Literal["subscribe"]
    jobs: Ids = Field(default_factory=list, description="Jobs to watch.")
    batches: Annotated[list[UUID], Field(max_length=20)] = Field(
        default_factory=list, description="Batches whose jobs to watch."
    )
    mine: bool = Field(default=False, description="Watch all of one's own that wait or run, and all to come.")
    after: dict[UUID, EventId] = Field(
        default_factory=dict, max_length=MOST_NAMED, description="The last event had of a job, to go on from there."
    )
    ref: Reference | None = Field(default=None, description="Comes back with the answer.")


class Unsubscribe(Strict):
    """Watch jobs no longer."""

    type: Literal["unsubscribe"]
    jobs: Ids = Field(default_factory=list)
    batches: Annotated[list[UUID], Field(max_length=20)] = Field(default_factory=list)
    mine: bool = Field(default=False, description="Hear of no new jobs, and leave all that are watched.")
    ref: Reference | None = None


class Ping(Strict):
    """Ask whether the server is there: for clients that cannot see the protocol's own pings."""

    type: Literal["ping"]
    ref: Reference | None = None


ClientMessage = Annotated[Subscribe | Unsubscribe | Ping, Field(discriminator="type")]
CLIENT_MESSAGE: TypeAdapter[Subscribe | Unsubscribe | Ping] = TypeAdapter(ClientMessage)


class Subscribed(BaseModel):
    """What is watched now because of a message; events follow."""

    type: Literal["subscribed", "unsubscribed"]
    ref: str | None
    jobs: list[UUID]
    #: Unknown and foreign ids look alike.
    not_found: list[UUID]
    mine: bool


class Pong(BaseModel):
    """The server is there."""

    type: Literal["pong"] = "pong"
    ref: str | None


class Refused(BaseModel):
    """A message that could not be followed; the connection stays."""

    type: Literal["error"] = "error"
    ref: str | None = None
    code: str
    message: str
    field: str | None = None


class JobGone(BaseModel):
    """A watched job was deleted."""

    type: Literal["gone"] = "gone"
    job: UUID
