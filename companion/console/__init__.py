"""The text console: a conversation in a terminal or through a pipe, with the worker's own entrypoint.

``start`` puts the first line on the screen before LiveKit is imported. ``talk`` takes the person's lines, from
``keyboard`` (a terminal) or ``typed`` (a pipe), and lets ``jobs`` hold the conversations: each is a job of an ordinary
server, in a thread of its own, and ``conversation`` is what the console sees of it. ``screen`` shows what is said.
``orders`` obeys what begins with a slash: ``commands`` has the parts that happen in the job, ``value`` measures.
"""
