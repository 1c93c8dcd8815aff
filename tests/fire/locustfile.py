"""What each of locust's users does: ask, wait for the answer, ask again, with a seed that nobody else has."""

from itertools import count

from locust import FastHttpUser, task

SEEDS = count(1_000_000)
CHAT = {"model": "octavo", "messages": [{"role": "user", "content": "turn 99282277:"}], "max_tokens": 9}


class Asker(FastHttpUser):
    @task
    def ask(self) -> None:
        self.client.post("/v1/chat/completions", json=CHAT | {"seed": next(SEEDS)})
