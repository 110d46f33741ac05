"""Health checks: what a backend says when it is asked whether it can serve.

`state` judges results (pure), `checks` asks once, `checker` asks again and again. What becomes of
an unhealthy backend is not decided here but in `planning.resolve`.
"""
