"""Reports: a title and sections, written as Markdown with plots beside it and as one self-contained HTML page."""
