//! The binary `swarmedge`: every role of Swarmedge, on tokio.

fn main() -> std::process::ExitCode {
    swarmedge_cli::main::<swarmedge_tokio::Tokio>()
}
