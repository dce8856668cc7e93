"""The resumable, chunked job: stored rows in chunks, a file for each finished chunk, workers here and elsewhere."""
