"""Our names of RandAugment's operations, by those of the official code."""

OURS = {
    "AutoContrast": "auto_contrast", "Equalize": "equalize", "Invert": "invert",
    "Rotate": "rotate", "PosterizeIncreasing": "posterize", "SolarizeIncreasing": "solarize",
    "SolarizeAdd": "solarize_add", "ColorIncreasing": "color", "ContrastIncreasing": "contrast",
    "BrightnessIncreasing": "brightness", "SharpnessIncreasing": "sharpness", "ShearX": "shear_x",
    "ShearY": "shear_y", "TranslateXRel": "translate_x", "TranslateYRel": "translate_y",
}  # fmt: skip
