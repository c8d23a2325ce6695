//! `swarmedge-smol`: every role of Swarmedge, on smol.

mod rt;

fn main() -> std::process::ExitCode {
    swarmedge_shell::main::<rt::Smol>()
}
