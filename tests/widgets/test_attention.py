import pytest


def test_every_slider_of_the_attention_explorer_changes_the_picture(explorer):
    for slider in (explorer.layer, explorer.head, explorer.query):
        before, value = explorer.view.value, slider.value
        slider.value = slider.min if value == slider.max else slider.max
        assert explorer.view.value != before
        slider.value = value
        assert explorer.view.value == before


def test_the_shown_weights_are_the_models(explorer):
    explorer.query.value = 2
    weights = explorer.maps[0][0, 2]
    assert weights[:3].sum().item() == pytest.approx(1)
    for w in weights[:3].tolist():
        assert f">{w:.2f}</td>" in explorer.view.value
