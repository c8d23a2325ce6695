//! Arguments of the commands that name a download or a cached version.

use super::ClientArgs;
use clap::Args;

/// Arguments of `swarmedge why`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "For each download the reason why it had no peers, or no more of them, as edge, connection node and database \
    node have given it; then each peer that was introduced, and how it was connected or why not; the last 64 of each \
    download. It is kept with the download, so that it can be asked for after the end, and without a running client. A \
    running client also tells how the last attempts ended to meet those whom it was to serve.\n\n\
    Peers' addresses are shown of running downloads only, with --addresses, and are not kept.\n\n\
    Examples:\n  \
    swarmedge why\n  \
    swarmedge why 2 --json\n  \
    swarmedge why 1/games/game.iso"
)]
pub struct WhyArgs {
    /// The download: its number, its object (a URL or PROVIDER/PATH) or the beginning of a version's id [default: all]
    #[arg(value_name = "DOWNLOAD")]
    pub name: Option<String>,
    /// Show the addresses of the peers of running downloads
    #[arg(long)]
    pub addresses: bool,
    /// State directory of the client.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Arguments of the commands on one download: `pause`, `resume`, `cancel`.
#[derive(Clone, Debug, Args)]
pub struct HandleArgs {
    /// The download: its number, its object (a URL or PROVIDER/PATH) or the beginning of its version's id
    #[arg(value_name = "DOWNLOAD")]
    pub name: String,
    /// State directory of the client.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Arguments of `swarmedge cache remove`.
#[derive(Clone, Debug, Args)]
pub struct CacheRemoveArgs {
    /// The version: the beginning of its id, as `cache list` shows it, or its object (a URL or PROVIDER/PATH)
    #[arg(value_name = "VERSION")]
    pub name: String,
    /// State directory of the client.
    #[command(flatten)]
    pub client: ClientArgs,
}
