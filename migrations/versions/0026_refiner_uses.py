"""Count the checkpoint that takes over as a refiner among what a job used.

Only a function is replaced, which takes no lock on a table. The release before counts by it too; what was counted so far stays as it is.

Revision ID: 0026
Revises: 0025
"""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_REFINER = "union all select 'checkpoint', request -> 'refiner' ->> 'model', null"


def upgrade() -> None:
    _replace(_REFINER)


def downgrade() -> None:
    _replace("")


def _replace(refiner: str) -> None:
    # The models that a job used, with the strengths of those that have one.
    op.execute(f"""
        create or replace function job_uses(task text, request jsonb) returns jsonb immutable parallel safe language sql as $uses$
            select coalesce(jsonb_agg(jsonb_build_object('kind', kind, 'name', name, 'weight', weight)), '[]')
            from (
                select 'checkpoint' as kind, request ->> 'model' as name, null::float8 as weight
                where task in ('txt2img', 'img2img', 'inpaint') or request -> 'refine' <> 'null'
                {refiner}
                union all
                select 'lora', value ->> 'name', (value ->> 'weight')::float8
                from jsonb_array_elements(coalesce(request -> 'loras', '[]'))
                union all
                select 'embedding', value, null from jsonb_array_elements_text(coalesce(request -> 'embeddings', '[]'))
                union all
                select 'controlnet', value ->> 'model', (value ->> 'scale')::float8
                from jsonb_array_elements(coalesce(request -> 'controls', '[]'))
                union all select 'vae', request ->> 'vae', null
                union all select 'upscaler', request ->> 'upscaler', null
                union all select 'upscaler', request -> 'hires' ->> 'upscaler', null
            ) used where name is not null
        $uses$
    """)
