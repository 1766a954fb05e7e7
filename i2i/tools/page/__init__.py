"""The page in the browser: `i2i serve`.

`guard` decides which requests come in, `order` checks their data, `studio` translates, `page` is drawn by Gradio,
`server` holds them together.
"""
