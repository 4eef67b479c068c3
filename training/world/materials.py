"""What things are made of, for the sounds of their impacts."""

from training.world.pack import concepts

__all__ = ["MATERIALS", "material_of"]

MATERIALS = ("soft", "rubber", "wood", "metal", "glass", "stone")
MADE_OF = {
    "rubber": "ball balloon donut",
    "wood": "guitar violin piano drum house tree book sailboat carrot broccoli cookie pretzel",
    "metal": "car taxi bus truck tractor ambulance bicycle motorcycle train airplane helicopter rocket ufo ship "
    "bell key crown trumpet robot|fire truck",
    "glass": "clock camera star lollipop",
    "stone": "castle church volcano island fountain skull turtle watermelon pineapple snail crab",
}


def material_of(concept: str) -> str:
    """Tell what a thing is made of, one of MATERIALS; whatever is not named elsewhere is soft."""
    assert concept in concepts(), f"no concept is called {concept!r}"
    for material, names in MADE_OF.items():
        singles, _, pairs = names.partition("|")
        if concept in singles.split() or concept in pairs.split("|"):
            return material
    return "soft"
