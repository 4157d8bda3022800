"""Views of videos: which frames and which parts of them a model sees."""
