//! `swarmedge`: every role of Swarmedge, on tokio.

mod rt;

fn main() -> std::process::ExitCode {
    swarmedge_shell::main::<rt::Tokio>()
}
