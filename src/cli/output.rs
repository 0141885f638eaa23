//! Where rows are printed to: standard output, or a file that is there whole or not at all.
