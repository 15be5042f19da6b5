"""The part of the route table about recommendations and the use of adapters."""

from typing import Final

from broker_api.endpoints import Answer, Body, Endpoint, parse_json
from broker_api.recommendations.doors import recommend_for_prompt, recommend_similar, recommend_together
from broker_api.recommendations.keeping import (
    Refresh,
    Refreshed,
    Statistics,
    StatusPage,
    StatusQuery,
    list_status,
    read_statistics,
    refresh,
    set_preferences,
    show_preferences,
    take_feedback,
)
from broker_api.recommendations.usage import (
    AdapterUsage,
    FeaturedList,
    FeaturedQuery,
    list_featured,
    read_adapter_usage,
)
from broker_api.recommendations.views import (
    AdapterQuery,
    Feedback,
    FeedbackTaken,
    PreferencesBody,
    PromptQuery,
    Recommendations,
)
from broker_api.refusals import NotFound, Starting
from jobs.cursors import CursorInvalid
from jobs.errors import ModelUnknown

_PATH: Final = "/v1/recommendations"
_FOUND: Final = (Answer(200, "The best first; each says why, and each source what became of it.", Recommendations),)
_EXAMPLE_ID: Final = "01990000-0000-7000-8000-000000000000"

RECOMMENDATION_ENDPOINTS: Final = (
    Endpoint(
        "GET", f"{_PATH}/similar", "recommendSimilar", "Adapters like one", "recommendations", recommend_similar,
        description=(
            "By what they do to the weights (the cosine of the low-rank updates, estimated at first and exact once the fleet has compared "
            "the best), by their texts, and by use. What is not known yet is looked at by the fleet's workers: ask again, or `wait`."
        ),
        query=AdapterQuery, answers=_FOUND, errors=(NotFound, Starting),
    ),
    Endpoint(
        "GET", f"{_PATH}/for-prompt", "recommendForPrompt", "Adapters for a prompt", "recommendations", recommend_for_prompt,
        description="The prompt is read by a worker, within `wait`; where that is not to be had words alone count, and the answer says so.",
        query=PromptQuery, answers=_FOUND, errors=(ModelUnknown, Starting),
    ),
    Endpoint(
        "GET", f"{_PATH}/together", "recommendTogether", "Adapters that work together with one", "recommendations", recommend_together,
        description="By what jobs used together, and by how little their updates disturb each other.",
        query=AdapterQuery, answers=_FOUND, errors=(NotFound, Starting),
    ),
    Endpoint(
        "POST", f"{_PATH}/feedback", "sendFeedback", "Say whether a recommendation helped", "recommendations", take_feedback,
        description="It counts in `use` for everybody; what did not help you with a prompt is not recommended to you for it again.",
        body=Body(
            models=(Feedback,), parse=Feedback.model_validate,
            example={"adapter": "shapes-frame", "helpful": True, "about": "a red circle in a black frame"},
        ),
        answers=(Answer(200, "Kept.", FeedbackTaken),), errors=(NotFound,),
    ),
    Endpoint(
        "GET", f"{_PATH}/preferences", "readPreferences", "How you are advised", "recommendations", show_preferences,
        answers=(Answer(200, "Your preferences.", PreferencesBody),),
    ),
    Endpoint(
        "PUT", f"{_PATH}/preferences", "setPreferences", "Say how you want to be advised", "recommendations", set_preferences,
        body=Body(
            models=(PreferencesBody,), parse=parse_json(PreferencesBody),
            example={"sources": {"weights": 0.5, "text": 0.5, "use": 0}, "hidden": [_EXAMPLE_ID]},
        ),
        answers=(Answer(200, "Kept.", PreferencesBody),),
    ),
    Endpoint(
        "GET", f"{_PATH}/stats", "recommendationStats", "What recommendations stand on", "recommendations", read_statistics,
        answers=(Answer(200, "Counted now.", Statistics),), errors=(Starting,),
    ),
    Endpoint(
        "POST", f"{_PATH}/refresh", "refreshRecommendations", "Have the fleet look at adapters", "recommendations", refresh,
        description="Jobs of the lowest priority; what is known and has not changed is not looked at again.",
        body=Body(models=(Refresh,), parse=Refresh.model_validate, example={"again": False}),
        answers=(Answer(202, "Asked.", Refreshed),), errors=(NotFound, Starting),
    ),
    Endpoint(
        "GET", f"{_PATH}/status", "recommendationStatus", "How far the fleet is with adapters", "recommendations", list_status,
        query=StatusQuery, answers=(Answer(200, "A page of adapters.", StatusPage),), errors=(NotFound, CursorInvalid),
    ),
    Endpoint(
        "GET", "/v1/adapters/{id}/usage", "readAdapterUsage", "How an adapter is used", "recommendations", read_adapter_usage,
        description="By its id or name; counted within seconds of a job's end, and kept when the jobs are deleted.",
        answers=(Answer(200, "Yours, and everybody's.", AdapterUsage),), errors=(NotFound,),
    ),
    Endpoint(
        "GET", "/v1/dashboard/featured", "listFeatured", "Adapters worth a look", "recommendations", list_featured,
        query=FeaturedQuery, answers=(Answer(200, "The best first, with the reason.", FeaturedList),),
    ),
)  # fmt: skip
