//! The `bpp-flow` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    bpp_flow::executor::keeper::main_if_keeper();
    bpp_flow::cli::main()
}
