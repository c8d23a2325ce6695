//! Arguments of the commands that describe the command line: `completions` and `man`.

use clap::Args;
use clap_complete::Shell;
use std::path::PathBuf;

/// Arguments of `swarmedge completions`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
    swarmedge completions bash > ~/.local/share/bash-completion/completions/swarmedge\n  \
    swarmedge completions zsh > ~/.zfunc/_swarmedge\n  \
    swarmedge completions fish > ~/.config/fish/completions/swarmedge.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Arguments of `swarmedge man`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Pages that are there are replaced.\n\n\
    Example:\n  swarmedge man ~/.local/share/man/man1 && man swarmedge-publish")]
pub struct ManArgs {
    /// The directory for the pages, made if it is missing
    pub dir: PathBuf,
}
