"""The HTTP API.

    app        puts it together        server    gunicorn, bounded
    routing    how a route is declared services  what it needs from the rest
    auth       keys and roles          errors    problem documents
    body       JSON, strictly          params    paths, query strings, cursors, If-Match
    serialize  records as JSON         schemas   their shapes, for the document
    api        the routes              docs_page the document for people
    probe      a check, bounded in time               problem   what the server itself says

A request takes: request id → key → route → role → query string → body → domain → database → answer. What is
wrong early is answered early; nothing is written before everything was checked.
"""
