//! The program `mesh`: everything is in the library.

fn main() -> std::process::ExitCode {
    meshwork::cli::main()
}
