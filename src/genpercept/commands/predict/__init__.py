"""The parts of `genpercept predict`: request, model, batches, the overlapped stream, several processes, Ray, the manifest."""
