//! Arguments of the commands on BitTorrent files (`torrent`).

use super::{ConfigArgs, ObjectArgs};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Subcommands of `swarmedge torrent`.
#[derive(Clone, Debug, Subcommand)]
pub enum TorrentCommand {
    /// Write a BitTorrent v2 file for a published version, with the edge as its web seed
    Export(TorrentExportArgs),
}

/// Arguments of `swarmedge torrent export`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  \
    swarmedge torrent export 1/games/game.iso -o game.torrent --config my-cdn/server.toml")]
pub struct TorrentExportArgs {
    /// The published object.
    #[command(flatten)]
    pub object: ObjectArgs,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}
