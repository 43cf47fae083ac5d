"""Reports as one HTML file: a page, sections, charts as SVG, tables; nothing is fetched from anywhere."""
