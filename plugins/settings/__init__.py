"""The app's settings as a whole: what there may be, what there has to be, and how an example of them reads."""
