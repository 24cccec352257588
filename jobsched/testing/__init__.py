"""For tests and benches, ours and our users': a target that answers as told, and an installation in a folder."""
