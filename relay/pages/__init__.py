"""The pages in a browser: view models, templates, routes, and the viewer."""
