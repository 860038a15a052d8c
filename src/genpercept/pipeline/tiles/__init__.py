"""Large photographs in tiles: where these lie (`plan`), brought to the whole (`fit`), joined (`join`), the call (`run`)."""
