"""HTTP service: a batcher that serves many clients at once, the routes, and the page (extra `serve`)."""
