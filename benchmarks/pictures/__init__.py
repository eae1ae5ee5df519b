"""Results of benchmarks in, the pictures of the documentation out; `make bench` draws them."""
