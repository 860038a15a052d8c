"""The parts of the synthetic world: textures, intersections, light, camera look, and the builders of scenes."""
