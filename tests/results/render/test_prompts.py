"""Are prompts drawn where they are, in their colours?"""

from __future__ import annotations

from PIL import Image

from diffinst.results.render.prompts import EXCLUDED, MEANT, with_prompts


def test_boxes_and_clicks_lie_where_they_are_and_the_canvas_stays() -> None:
    canvas = Image.new("RGB", (60, 40), (0, 0, 0))
    drawn = with_prompts(canvas, [[5, 5, 25, 30]], [[40, 10]], [[50, 30], [30, 2, 36, 36]])
    assert drawn.getpixel((40, 10)) == MEANT and drawn.getpixel((50, 30)) == EXCLUDED
    assert drawn.getpixel((6, 15)) == MEANT and drawn.getpixel((23, 15)) == MEANT
    assert drawn.getpixel((31, 15)) == EXCLUDED
    assert drawn.getpixel((15, 18)) == (0, 0, 0)
    assert canvas.getextrema() == ((0, 0), (0, 0), (0, 0))


def test_a_tiny_box_and_a_click_on_the_edge_are_drawn() -> None:
    canvas = Image.new("RGB", (20, 20), (0, 0, 0))
    assert with_prompts(canvas, [[3, 3, 4, 4]], [[20, 0]]).size == (20, 20)
    assert with_prompts(canvas).tobytes() == canvas.tobytes()
