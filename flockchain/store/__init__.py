"""Rows and bytes on disk: the one writer, the read-only readers, the blob store. Nothing here decides validity."""
