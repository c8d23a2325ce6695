//! The client's commands `client run`, `get` and `cache`: convert arguments and call the module [`crate::client`].

use super::Error;
use super::args::{CacheCommand, ClientArgs, ClientRunArgs, GetArgs};
use super::stop::stop_signal;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use swarmedge_client::client::api_state::ApiState;
use swarmedge_client::client::commands::{self, default_state_dir};
use swarmedge_client::client::get::{self, Get};
use swarmedge_client::client::{ClientConfig, process};
use swarmedge_ground::ops;
use swarmedge_ground::reach::Reach;
use swarmedge_ground::rt::Start;
use swarmedge_ground::terminal::out::note;

/// Runs the command `swarmedge client run`.
pub(super) fn run<R: Start>(args: &ClientRunArgs, exit_with_parent: bool) -> Result<(), Error> {
    let mut config = ClientConfig::load(&state_of(&args.client)?, args.bundle.as_deref())?;
    config.links = !args.copy;
    config.birthday = args.birthday;
    if !args.tcp_port.is_empty() {
        config.tcp.clone_from(&args.tcp_port);
    }
    config.port_mapping = !args.no_port_mapping;
    config.reach = Reach::chosen(args.proxy.proxy.as_deref())?;
    ops::init_metrics();
    let ready = |api_state: &ApiState| {
        tracing::info!("client is ready");
        if std::io::stderr().is_terminal() {
            let on = api_state.status().uploads;
            let uploads = if on { "on (`swarmedge uploads off` ends them)" } else { "off" };
            note!("the client runs: `swarmedge status` shows it; uploads to others are {uploads}");
        }
    };
    process::run_on::<R, _>(&config, ready, move |rt| {
        let stop = stop_signal(rt, exit_with_parent, None)?;
        Ok(async move { stop.wait().await })
    })
}

/// Runs the command `swarmedge get`.
pub(super) fn get<R: Start>(args: GetArgs, json: bool) -> Result<(), Error> {
    let state = state_of(&args.client)?;
    let GetArgs { url, token, output, force, bundle, proxy, client: _ } = args;
    get::get::<R>(&Get { url, token, output, force, json, bundle, state, proxy: proxy.proxy })
}

/// Runs the command `swarmedge cache …`.
pub(super) fn cache(command: &CacheCommand, json: bool) -> Result<(), Error> {
    match command {
        CacheCommand::List(client) => commands::cache_list(&state_of(client)?, json),
        CacheCommand::Remove(args) => commands::cache_remove(&state_of(&args.client)?, json, &args.name),
    }
}

/// Returns the client's state directory: `--state`, or the default.
pub(super) fn state_of(args: &ClientArgs) -> Result<PathBuf, Error> {
    args.state.clone().map_or_else(default_state_dir, Ok)
}
