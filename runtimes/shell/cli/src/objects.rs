//! Commands on an edge's objects and keys: `publish`, `objects`, `policy`, `unpublish`, `torrent export`, `keys`,
//! `provider-keys`.

use super::args::{
    ConfigArgs, PolicyArgs, ProviderKeysCommand, ProviderKeysRotateArgs, PublishArgs, TorrentExportArgs, UnpublishArgs,
};
use super::{Code, Error};
use crate::config::ServerConfig;
use std::path::PathBuf;
use swarmedge_core::accounting::epochs::Epochs;
use swarmedge_core::ids::ProviderId;
use swarmedge_edge::catalogue::Files;
use swarmedge_edge::policy::AccessText;
use swarmedge_edge::provider_keys::{self, NewKey, ProviderKeys, TOKEN_NAME};
use swarmedge_edge::torrent;
use swarmedge_edge::{self, Change, Publish, Published};
use swarmedge_ground::seals;
pub(super) use swarmedge_ground::terminal::out::print_json;
use swarmedge_ground::terminal::out::say;
use swarmedge_ground::terminal::units::bytes;

/// Runs the command `swarmedge publish`.
pub(super) fn publish(args: &PublishArgs, json: bool) -> Result<(), Error> {
    let edge = edge_of(&args.config)?;
    let policy = args.policy.as_deref().map(swarmedge_edge::policy::load).transpose()?;
    let object = args.object.named()?;
    let what = Publish {
        file: args.file.clone(),
        provider: object.provider,
        path: object.path,
        access: args.access.map(Into::into),
        policy,
    };
    let published = swarmedge_edge::publish(&edge.objects, &what)?;
    if json {
        return print_json(&published);
    }
    let what = match published.change {
        Change::New => "published",
        Change::Version => "published a new version of",
        Change::None => "unchanged bytes of",
    };
    let url = torrent::object_url(&edge.url, ProviderId(published.provider), &published.path);
    say!("{what} {url} ({})", bytes(published.size))?;
    say!("version {}", published.version)?;
    let changed = published.policy.changed();
    let kept = if args.policy.is_none() && published.change != Change::New { ", as before" } else { "" };
    say!("policy {}{kept}", if changed.is_empty() { "default" } else { &changed })?;
    if published.access == AccessText::Token {
        let keys = ProviderKeys::load(&Files::new(&edge.objects))?;
        let missing = keys.of(object.provider).is_none();
        say!("only with a token of provider {}{}", object.provider, if missing { NO_KEY } else { "" })?;
    }
    Ok(())
}

const NO_KEY: &str = ", which has no key yet: see `provider-keys rotate --help`";

/// Runs the command `swarmedge keys rotate`.
pub(super) fn rotate_keys(args: &ConfigArgs, json: bool) -> Result<(), Error> {
    let config = ServerConfig::load(&args.config)?;
    let edge = config.edge.as_ref().map(|e| e.seal_key.as_path());
    let stun = config.stun.as_ref().and_then(|s| s.seal_key.as_deref());
    let cn = config.cn.as_ref().map(|c| c.seal_key.as_path());
    let mut files: Vec<_> = edge.into_iter().chain(cn).chain(stun).collect();
    files.dedup();
    let epochs = seals::rotate(&files)?;
    if json {
        let Epochs { previous, current, next } = epochs;
        return print_json(&serde_json::json!({ "previous": previous, "current": current, "next": next }));
    }
    let next = epochs.next.map_or_else(String::new, |next| format!(", and epoch {next} is ready"));
    say!("epoch {} seals{next}; running servers take it up within a second", epochs.current)?;
    files.iter().try_for_each(|f| say!("servers on other machines need a copy of {}", f.display()))
}

/// Runs the command `swarmedge provider-keys …`.
pub(super) fn provider_keys(command: &ProviderKeysCommand, json: bool) -> Result<(), Error> {
    match command {
        ProviderKeysCommand::Rotate(args) => rotate_provider_key(args, json),
        ProviderKeysCommand::List(config) => list_provider_keys(config, json),
        ProviderKeysCommand::Remove(args) => {
            provider_keys::remove(&edge_of(&args.config)?.objects, ProviderId(args.provider))?;
            if json {
                return print_json(&serde_json::json!({ "provider": args.provider }));
            }
            say!("no token of provider {} counts any more", args.provider)
        }
    }
}

fn rotate_provider_key(args: &ProviderKeysRotateArgs, json: bool) -> Result<(), Error> {
    let edge = edge_of(&args.config)?;
    let new = NewKey { key: args.key.clone(), salt: args.salt.clone(), token_name: args.token_name.clone() };
    let key = provider_keys::rotate(&edge.objects, ProviderId(args.provider), &new)?;
    let keys = ProviderKeys::load(&Files::new(&edge.objects))?;
    let (name, count) = keys.of(ProviderId(args.provider)).map_or((TOKEN_NAME, 0), |p| (&p.token_name, p.keys.len()));
    if json {
        let all = serde_json::json!({ "provider": args.provider, "key": key, "token_name": name, "keys": count });
        return print_json(&all);
    }
    say!("key {key}\nprovider {} signs with it as `{name}`, by HMAC-SHA256", args.provider)?;
    if count > 1 {
        say!("tokens made with the key before count until the next rotation")?;
    }
    Ok(())
}

fn list_provider_keys(config: &ConfigArgs, json: bool) -> Result<(), Error> {
    let keys = ProviderKeys::load(&Files::new(edge_of(config)?.objects))?;
    if json {
        let one = |(id, p): (ProviderId, &provider_keys::Provider)| serde_json::json!({ "provider": id.0, "token_name": p.token_name, "keys": p.keys.len() });
        return print_json(&keys.iter().map(one).collect::<Vec<_>>());
    }
    keys.iter().try_for_each(|(id, p)| say!("provider {id}: {} as `{}`", count_of(p.keys.len()), p.token_name))
}

fn count_of(keys: usize) -> String {
    if keys == 1 { "one key".into() } else { format!("{keys} keys") }
}

/// Runs the command `swarmedge objects`.
pub(super) fn list(args: &ConfigArgs, json: bool) -> Result<(), Error> {
    let edge = edge_of(args)?;
    let objects = swarmedge_edge::objects(&edge.objects)?;
    if json {
        return print_json(&objects);
    }
    if objects.is_empty() {
        say!("nothing is published yet: see `publish --help`")?;
    }
    objects.iter().try_for_each(|o| say!("{}", line(&edge.url, o)))
}

/// Runs the command `swarmedge policy`.
pub(super) fn set_policy(args: &PolicyArgs, json: bool) -> Result<(), Error> {
    let edge = edge_of(&args.config)?;
    let keys = swarmedge_edge::policy::load(&args.file)?;
    let objects = swarmedge_edge::set_policy(&edge.objects, ProviderId(args.provider), keys)?;
    if json {
        return print_json(&serde_json::json!({ "provider": args.provider, "objects_changed": objects }));
    }
    let objects = if objects == 1 { "one object".to_owned() } else { format!("{objects} objects") };
    say!("provider {}: the policy of {objects} has changed", args.provider)
}

/// Runs the command `swarmedge unpublish`.
pub(super) fn unpublish(args: &UnpublishArgs, json: bool) -> Result<(), Error> {
    let edge = edge_of(&args.config)?;
    let object = args.object.named()?;
    let gone = swarmedge_edge::unpublish(&edge.objects, object.provider, &object.path)?;
    if json {
        return print_json(&gone);
    }
    say!("withdrew {}/{} ({} versions)", gone.provider, gone.path, gone.versions)
}

/// Runs the command `swarmedge torrent export`.
pub(super) fn export(args: &TorrentExportArgs, json: bool) -> Result<(), Error> {
    let edge = edge_of(&args.config)?;
    let object = args.object.named()?;
    let exported = torrent::export(&edge, object.provider, &object.path, &args.output)?;
    if json {
        return print_json(&exported);
    }
    say!("wrote {} for {} ({})", args.output.display(), exported.web_seed, bytes(exported.size))?;
    say!("info-hash {}\n{}", exported.info_hash, exported.magnet)
}

fn line(url: &str, o: &Published) -> String {
    let peers = if o.policy.peer_download { "" } else { "  edge only" };
    let older = if o.older == 0 { String::new() } else { format!("  {} older", o.older) };
    let access = if o.access == AccessText::Token { "  with a token" } else { "" };
    let version = o.version.to_string();
    let url = torrent::object_url(url, ProviderId(o.provider), &o.path);
    format!("{:>10}  {}  {url}{access}{peers}{older}", bytes(o.size), &version[..12])
}

fn edge_of(args: &ConfigArgs) -> Result<swarmedge_edge::EdgeConfig, Error> {
    let config = ServerConfig::load(&args.config)?;
    config.edge.ok_or_else(|| no_section(args.config.clone(), "edge"))
}

/// Makes the error for a role that has no section in the configuration.
pub(super) fn no_section(config: PathBuf, role: &str) -> Error {
    Error::new(Code::Usage, format!("{} has no [{role}] section", config.display()))
        .next("`init` in an empty directory makes a complete configuration to copy from")
}
