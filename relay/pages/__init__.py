"""What people see in a browser: each page's values, its templates, and the viewer."""
