"""Captions that look wrong: damaged characters and other languages."""

import pytest

from showtell.data.check import suspects


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("A café by the sea .", None),
        ("“Quotes” – and dashes … are fine, so is naïve Ågot .", None),
        ("Señor Müller's façade .", None),
        ("A cafÃ© .", "UTF-8 read as cp1252; meant is 'A café .'"),
        ("A dogâ€™s ball .", "UTF-8 read as cp1252"),
        ("A caf\ufffd .", "replacement"),
        ("A\x00dog .", "control"),
        ("A dog &amp; a cat .", "HTML entity &amp;"),
        ("R&B singers ; rock & roll .", None),
    ],
)
def test_damaged_captions(caption, reason):
    assert (suspects.damage(caption) is None) if reason is None else (reason in suspects.damage(caption))


@pytest.mark.parametrize(
    ("caption", "foreign"),
    [
        ("A dog runs across the grass .", False),
        ("dog", False),
        ("Two dogs play", False),
        ("A man in a de la Salle shirt eats a taco al pastor .", False),
        ("Children die laughing in a pub called la mer .", False),
        ("12 34", False),
        ("Ein Hund läuft über die Wiese .", True),
        ("Un chien court dans l'herbe avec une balle .", True),
        ("Un perro corre por la hierba .", True),
        ("Um cachorro corre na grama com uma bola .", True),
        ("Een hond rent op het gras .", True),
        ("Собака бежит по траве .", True),
        ("一只狗在草地上奔跑 。", True),
    ],
)
def test_foreign_captions(caption, foreign):
    assert suspects.is_foreign(caption) is foreign
