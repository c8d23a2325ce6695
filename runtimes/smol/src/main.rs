//! The binary `swarmedge-smol`: every role of Swarmedge, on smol.

fn main() -> std::process::ExitCode {
    swarmedge_cli::main::<swarmedge_smol::Smol>()
}
