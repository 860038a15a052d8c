"""Large photographs in tiles: where they lie (`plan`), how each is fitted to the whole (`fit`), how they are joined (`join`), the call (`run`)."""
