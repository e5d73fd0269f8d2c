"""The front: what of HTTP is done before and after Django.

One event loop for each web process takes requests from granian (RSGI) and hands them to threads, where Django answers.
What needs no thread has none: a small body that is still on its way, a client that waits for news, a file that is being
sent. Why, and what was measured: docs/decisions/the-front.md.
"""
