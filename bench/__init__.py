"""The project's own figures. Every figure in the README is regenerated from here: `make bench`.

Each benchmark runs several times and reports its median with the least and the most; whatever it is compared with
runs beside it in the same call. Results are written to `bench/results/<name>.json` with machine, date and commit.
"""
