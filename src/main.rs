//! The `bpp-flow` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    bpp_flow::cli::main()
}
