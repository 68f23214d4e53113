"""HTTP server: dynamic batching across clients, the routes, and the web page (extra `serve`)."""
