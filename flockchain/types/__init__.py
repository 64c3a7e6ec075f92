"""Plain data that every room may know: frozen structs with canonical bytes, no behaviour."""
