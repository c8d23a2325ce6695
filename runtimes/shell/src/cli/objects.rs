//! `publish`, `objects`, `unpublish`, `torrent export`: what the edge of a configuration delivers.

use super::args::{ConfigArgs, PublishArgs, TorrentExportArgs, UnpublishArgs};
pub(super) use super::out::print_json;
use super::out::say;
use super::units::bytes;
use super::{Code, Error};
use crate::config::ServerConfig;
use crate::edge::{self, Change, Publish, Published};
use crate::torrent;
use std::path::PathBuf;
use swarmedge_core::content::Policy;
use swarmedge_core::ids::ProviderId;

/// `swarmedge publish`.
pub(super) fn publish(args: &PublishArgs, json: bool) -> Result<(), Error> {
    let edge = edge_of(&args.config)?;
    let policy = args.policy.as_deref().map_or(Ok(Policy::default()), edge::policy::load)?;
    let what =
        Publish { file: args.file.clone(), provider: ProviderId(args.provider), path: args.path.clone(), policy };
    let published = edge::publish(&edge.objects, &what)?;
    if json {
        return print_json(&published);
    }
    let what = match published.change {
        Change::New => "published",
        Change::Version => "published a new version of",
        Change::None => "unchanged bytes, policy set for",
    };
    say!("{what} {}/{}/{} ({})", edge.url, published.provider, published.path, bytes(published.size))?;
    say!("version {}", published.version)
}

/// `swarmedge objects`.
pub(super) fn list(args: &ConfigArgs, json: bool) -> Result<(), Error> {
    let edge = edge_of(args)?;
    let objects = edge::objects(&edge.objects)?;
    if json {
        return print_json(&objects);
    }
    if objects.is_empty() {
        say!("nothing is published yet: see `publish --help`")?;
    }
    objects.iter().try_for_each(|o| say!("{}", line(&edge.url, o)))
}

/// `swarmedge unpublish`.
pub(super) fn unpublish(args: &UnpublishArgs, json: bool) -> Result<(), Error> {
    let edge = edge_of(&args.config)?;
    let gone = edge::unpublish(&edge.objects, ProviderId(args.provider), &args.path)?;
    if json {
        return print_json(&gone);
    }
    say!("withdrew {}/{} ({} versions)", gone.provider, gone.path, gone.versions)
}

/// `swarmedge torrent export`.
pub(super) fn export(args: &TorrentExportArgs, json: bool) -> Result<(), Error> {
    let edge = edge_of(&args.config)?;
    let exported = torrent::export(&edge, ProviderId(args.provider), &args.path, &args.output)?;
    if json {
        return print_json(&exported);
    }
    say!("wrote {} for {} ({})", args.output.display(), exported.web_seed, bytes(exported.size))?;
    say!("info-hash {}\n{}", exported.info_hash, exported.magnet)
}

fn line(url: &str, o: &Published) -> String {
    let peers = if o.policy.peer_download { "" } else { "  edge only" };
    let older = if o.older == 0 { String::new() } else { format!("  {} older", o.older) };
    let version = o.version.to_string();
    format!("{:>10}  {}  {url}/{}/{}{peers}{older}", bytes(o.size), &version[..12], o.provider, o.path)
}

fn edge_of(args: &ConfigArgs) -> Result<edge::EdgeConfig, Error> {
    let config = ServerConfig::load(&args.config)?;
    config.edge.ok_or_else(|| no_section(args.config.clone(), "edge"))
}

/// The error for a role that the configuration says nothing about.
pub(super) fn no_section(config: PathBuf, role: &str) -> Error {
    Error::new(Code::Usage, format!("{} has no [{role}] section", config.display()))
        .next("`init` in an empty directory makes a complete configuration to copy from")
}
