"""The steps of data.prepare: join listings, read images, find duplicates, group, split, write."""
